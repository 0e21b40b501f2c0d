//! Checkpoints of a query whose state is at executors: each writes what it holds, the driver what is left to say.

use std::sync::Arc;

use futures::future::try_join_all;

use super::Member;
use super::lineage::Kept;
use super::message::{Reply, Request, united};
use super::placement::MOST_ATTEMPTS;
use super::slots::KeyRange;
use super::spread::{Spread, ask};
use crate::batch::Epoch;
use crate::checkpoint::{Manifest, Saved};
use crate::error::{Error, Result};

impl Spread {
    /// The next image is to have every entry.
    pub(crate) const fn forget_images(&mut self) {
        self.wants_everything = true;
    }

    /// Has every slot take an image of the state before `epoch`; what writes them, to be awaited away from the epochs.
    pub(crate) async fn image(
        &mut self,
        epoch: Epoch,
    ) -> Result<impl Future<Output = Result<Saved>> + Send + 'static + use<>> {
        let mut attempts = 0;
        let owners = loop {
            let owners = self.owners();
            let image = Request::Image { reign: self.reign.clone(), epoch, everything: self.wants_everything };
            match try_join_all(owners.iter().map(|owner| self.ask(owner, &image))).await {
                Err(error) if error.is_lost() && attempts < MOST_ATTEMPTS => {
                    attempts += 1;
                    self.replace_lost(error, epoch, epoch).await?;
                }
                ended => {
                    ended?;
                    break owners;
                }
            }
        };
        self.wants_everything = false;
        let (executors, counted) = (Arc::clone(&self.seat.executors), self.plan.counts_by_stage());
        let request = Request::Write { reign: self.reign.clone(), epoch };
        let mut ranges: Vec<KeyRange> = self.slots.iter().map(|slot| slot.range).collect();
        ranges.sort_unstable();
        Ok(async move {
            let asked = owners.iter().map(|owner| ask(executors.as_ref(), owner, &request));
            let mut slots = Vec::new();
            for reply in try_join_all(asked).await? {
                let Reply::Written(written) = reply else {
                    return Err(Error::internal("an executor says not what it has written"));
                };
                slots.extend(written);
            }
            slots.sort_unstable_by_key(|slot| slot.range);
            if !slots.iter().map(|slot| slot.range).eq(ranges) {
                return Err(Error::lost("a checkpoint lacks slots, which have moved meanwhile"));
            }
            let mut saved = united(slots);
            for (stage, counts) in saved.stages.iter_mut().zip(counted) {
                stage.leaves.iter_mut().zip(counts).for_each(|(leaf, counts)| leaf.counts.add(&counts));
            }
            Ok(saved)
        })
    }

    /// The executors that own slots, each once.
    fn owners(&self) -> Vec<Member> {
        let mut owners: Vec<Member> = self.slots.iter().map(|slot| slot.owner.clone()).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// Goes on from a checkpoint that was written when something is lost from now on.
    pub(crate) fn note_checkpoint(&mut self, manifest: &Manifest) {
        if let Some(kept) = &mut self.kept {
            *kept = Kept {
                saved: Some(manifest.saved()),
                first: manifest.epoch,
                saved_in: manifest.term,
                folder: kept.folder.clone(),
            };
            self.sent.forget_before(manifest.epoch);
        }
    }

    /// Whether a checkpoint is wanted, so that less has to be kept of what was sent.
    pub(crate) const fn wants_checkpoint(&self) -> bool {
        self.kept.is_some() && self.sent.is_large()
    }
}
