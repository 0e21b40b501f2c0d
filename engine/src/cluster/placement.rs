//! Which executor owns which slots: as a query begins, when executors are lost, come or leave.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};

use super::Member;
use super::lineage::{Kept, Lineage};
use super::message::{Assign, HeldSlot, Reign, Reply, Request, StoreAccess, part_of};
use super::slots::{KeyRange, around, even};
use super::spread::{OwnedSlot, Spread, ask};
use crate::batch::Epoch;
use crate::driver::stopped;
use crate::error::{Error, Result};
use crate::executor::Spreading;

/// How often slots are given new owners before the query is begun again as a whole …
pub(super) const MOST_ATTEMPTS: u32 = 20;
/// … and the pause before the first and each further of these attempts.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// Slots with the number of their executor, and the epoch that they take next if they are held there.
type Placed = Vec<(KeyRange, usize, Option<Epoch>)>;

/// Which slots that are held can go on.
#[derive(Debug)]
enum OfUse {
    /// Of an earlier driver those that take one of these epochs next, of which the epoch before was decided in that term.
    Left([(Epoch, u64); 2]),
    /// Of this driver those that take one of these epochs next, or stand where it began.
    Held([Epoch; 2]),
}

impl Spread {
    /// Begins with what an earlier driver has left: gives every slot an owner, the one that holds it if its state is of
    /// use, else one that begins with the checkpoint. `query` and `term` are the query's id and term.
    pub(crate) async fn resume(&mut self, query: &str, term: u64, lineage: Lineage) -> Result<()> {
        self.reign = Reign { query: query.to_owned(), term };
        if let Some(saved) = &lineage.saved {
            self.plan.count_on(&mut saved.stages.iter());
        }
        self.begun_at = (lineage.next, lineage.end);
        self.decided = term;
        self.slots.clear();
        self.sent.clear();
        let left = [(lineage.next, lineage.decided.0), (lineage.end, lineage.decided.1)];
        self.evaluated = lineage.saved.as_ref().and_then(|saved| saved.stages.last()).map(|stage| stage.evaluated);
        let Lineage { saved, first, folder, saved_in, .. } = lineage;
        let kept = Kept { saved, first, saved_in, folder };
        let mut attempts = 0;
        loop {
            match self.place(&kept, &OfUse::Left(left)).await {
                Err(error) if error.is_lost() && attempts < MOST_ATTEMPTS => {
                    attempts += 1;
                    tokio::time::sleep(PAUSE * attempts).await;
                }
                ended => break ended?,
            }
        }
        self.kept = self.seat.store.is_some().then_some(kept);
        self.next = first;
        Ok(())
    }

    /// Gives new owners to the slots of executors that are gone, and sends them what they need to come to `next`.
    /// Slots may have taken in what comes before `end` already.
    ///
    /// # Errors
    /// Gives `lost` back if what was sent since the last checkpoint is not all there.
    pub(super) async fn replace_lost(&mut self, lost: Error, next: Epoch, end: Epoch) -> Result<()> {
        tracing::info!(query = self.reign.query, reason = %lost, "executors are lost, others take over");
        self.move_slots(lost, next, end).await
    }

    /// Spreads the slots over all executors that there are.
    ///
    /// # Errors
    /// As [`Spread::replace_lost`].
    pub(crate) async fn rebalance(&mut self, reason: String) -> Result<()> {
        tracing::info!(query = self.reign.query, reason, "slots move");
        self.move_slots(Error::lost(reason), self.next, self.next).await
    }

    async fn move_slots(&mut self, mut reason: Error, next: Epoch, end: Epoch) -> Result<()> {
        let Some(kept) = self.kept.clone() else { return Err(reason) };
        let is_cut = self.plan.gives_by_epoch();
        let started = Instant::now();
        for attempt in 0..MOST_ATTEMPTS {
            let Some(sent) = self.sent.between(kept.first, next, is_cut) else { return Err(reason) };
            tokio::time::sleep(PAUSE * attempt).await;
            self.doubt_streams();
            let moved = async {
                self.place(&kept, &OfUse::Held([next, end])).await?;
                for epochs in &sent {
                    self.send(epochs, false, false).await?;
                }
                Ok(())
            };
            match moved.await {
                Err(error) if Error::is_lost(&error) => reason = error,
                Err(error) => return Err(error),
                Ok(()) => {
                    let epochs = next.0 - kept.first.0;
                    tracing::info!(query = self.reign.query, epochs, elapsed = ?started.elapsed(), "slots are there again");
                    return Ok(());
                }
            }
        }
        Err(reason)
    }

    /// Gives every slot an owner.
    async fn place(&mut self, kept: &Kept, of_use: &OfUse) -> Result<()> {
        let mut stop = self.plan.stop();
        let members = tokio::select! {
            biased;
            () = stopped(&mut stop) => return Err(Error::lost("the query was stopped while it waited for executors")),
            members = self.seat.executors.ready() => self.stragglers.without_resting(members, Instant::now()),
        };
        let held = self.held(&members, of_use).await?;
        let partitions = match self.spreading {
            Spreading::ByKey(partitions) | Spreading::Whole(partitions) => partitions,
            Spreading::Nowhere => return Err(Error::internal("a query without state has slots")),
        };
        let known: Vec<_> = held.iter().map(|(range, owner, _)| (*range, *owner)).collect();
        let assignment = match self.spreading {
            Spreading::ByKey(_) if has_idle(&known, members.len()) => even(partitions, members.len()),
            Spreading::ByKey(_) => around(&known, partitions, members.len()),
            _ if known.is_empty() => vec![(KeyRange::all(partitions), self.home(members.len()))],
            _ => known,
        };
        let next_of = |range: KeyRange, owner: usize| {
            held.iter().find(|(known, of, _)| (*known, *of) == (range, owner)).map(|(.., next)| *next)
        };
        let slots: Placed = assignment.iter().map(|(range, owner)| (*range, *owner, next_of(*range, *owner))).collect();
        self.assign(&members, &slots, kept).await?;
        self.release_from_others(&members);
        let begun = slots.iter().filter(|(.., next)| next.is_none()).count();
        let (query, term) = (&self.reign.query, self.reign.term);
        tracing::info!(query, term, slots = slots.len(), begun, executors = members.len(), "slots assigned");
        self.slots = self.owned(&members, slots, kept.first);
        self.mappers = if self.streams.is_empty() { Vec::new() } else { members.clone() };
        self.streams.iter().for_each(|readers| readers.prefer(&members));
        self.seen = members;
        Ok(())
    }

    fn owned(&self, members: &[Member], slots: Placed, first: Epoch) -> Vec<OwnedSlot> {
        let owned = slots.into_iter().filter_map(|(range, owner, next)| {
            let owner = members.get(owner)?.clone();
            let before = self.slots.iter().find(|slot| slot.range == range && slot.owner == owner);
            let receipt = before.filter(|_| next.is_some()).and_then(|slot| slot.receipt.clone());
            Some(OwnedSlot { range, owner, next: next.unwrap_or(first), receipt })
        });
        owned.collect()
    }

    /// Begins the term at every executor; the slots there that are of use, each with the number of its executor.
    async fn held(&self, members: &[Member], of_use: &OfUse) -> Result<Vec<(KeyRange, usize, Epoch)>> {
        let request = Request::Hold(self.reign.clone());
        let asked = join_all(members.iter().map(|member| self.ask(member, &request))).await;
        let mut held: Vec<(KeyRange, usize, Epoch)> = Vec::new();
        for (number, reply) in asked.into_iter().enumerate() {
            let Reply::Held(slots) = reply? else { return Err(Error::internal("an executor says not what it holds")) };
            let kept = slots.into_iter().filter(|slot| self.is_of_use(slot, of_use));
            held.extend(kept.map(|slot| (slot.range, number, slot.next)));
        }
        // Of two that hold the same, which can be if one was thought lost, one is enough.
        held.sort_unstable();
        held.dedup_by_key(|(range, ..)| *range);
        Ok(held)
    }

    /// Whether a slot that is held can go on: one that stands between epochs that are sent together cannot, and one that
    /// has taken in what nobody knows of, or knows otherwise, must not.
    fn is_of_use(&self, slot: &HeldSlot, of_use: &OfUse) -> bool {
        let stands_right = match of_use {
            // What views have counted is nowhere else.
            OfUse::Left(epochs) => epochs.contains(&(slot.next, slot.decided)) && !self.plan.has_views(),
            OfUse::Held(epochs) => {
                let (committed, begun) = self.begun_at;
                let is_ahead = epochs.iter().all(|epoch| *epoch <= slot.next);
                let stands_ahead = is_ahead && (slot.next == committed || slot.next == begun);
                slot.term == self.reign.term && (epochs.contains(&slot.next) || stands_ahead)
            }
        };
        stands_right && slot.program == self.seat.program
    }

    /// The number of the executor of a query that is in one piece: another one for another query.
    fn home(&self, members: usize) -> usize {
        let hash = xxhash_rust::xxh3::xxh3_64(self.reign.query.as_bytes());
        usize::try_from(hash % members.max(1) as u64).unwrap_or_default()
    }

    async fn assign(&self, members: &[Member], slots: &Placed, kept: &Kept) -> Result<()> {
        let contracts: Vec<String> = self.plan.contracts()?.into_iter().map(|(contract, _)| contract).collect();
        let store = self.seat.store.as_ref().map(|(place, durability)| StoreAccess {
            place: place.to_string(),
            folder: kept.folder.clone(),
            durability: *durability,
        });
        let asked = members.iter().enumerate().map(async |(number, member)| {
            let own = || slots.iter().filter(|(_, owner, _)| *owner == number);
            let keep = own().filter(|(.., next)| next.is_some()).map(|(range, ..)| *range).collect();
            let begin: Vec<_> = own().filter(|(.., next)| next.is_none()).map(|(range, ..)| *range).collect();
            let from = kept.saved.as_ref().filter(|_| !begin.is_empty()).map(|saved| part_of(saved, &begin));
            let assign = Assign {
                reign: self.reign.clone(),
                program: self.seat.program.clone(),
                contracts: contracts.clone(),
                store: store.clone(),
                keep,
                begin,
                next: kept.first,
                decided: kept.saved_in,
                from,
            };
            match own().next() {
                _ if !self.streams.is_empty() => self.ask(member, &Request::Assign(Box::new(assign))).await,
                Some(_) => self.ask(member, &Request::Assign(Box::new(assign))).await,
                // It may have held slots.
                None => self.ask(member, &Request::Release(self.reign.clone())).await,
            }
        });
        try_join_all(asked).await.map(drop)
    }

    /// Has executors that want to leave, or are slow, forget what others have taken over; nobody waits for them.
    fn release_from_others(&self, members: &[Member]) {
        let left: BTreeSet<Member> = self.slots.iter().map(|slot| slot.owner.clone()).collect();
        for owner in left.into_iter().filter(|owner| !members.contains(owner)) {
            let (executors, request) = (Arc::clone(&self.seat.executors), Request::Release(self.reign.clone()));
            tokio::spawn(async move {
                // One that is gone has forgotten already.
                let _ = ask(executors.as_ref(), &owner, &request).await;
            });
        }
    }

    /// Why its slots should lie elsewhere, if they should: an executor has come, or wants to leave.
    pub(crate) fn misplaced(&self) -> Option<String> {
        let live = self.seat.executors.live();
        let owns = |member: &Member| self.slots.iter().any(|slot| slot.owner == *member);
        let leaving = self.slots.iter().find(|slot| !live.contains(&slot.owner));
        if let Some(slot) = leaving.filter(|_| !live.is_empty()) {
            return Some(format!("{} leaves", slot.owner));
        }
        let able = self.stragglers.without_resting(live.clone(), Instant::now());
        if let Some(slow) = live.iter().find(|member| owns(member) && !able.contains(member)) {
            return Some(format!("{slow} is slow"));
        }
        let is_by_key = matches!(self.spreading, Spreading::ByKey(_));
        let maps = |member: &Member| self.streams.is_empty() || self.mappers.contains(member);
        let idle = able.iter().find(|member| (is_by_key && !owns(member)) || !maps(member));
        idle.map(|idle| format!("{idle} has come"))
    }

    /// Completes once its slots should lie elsewhere, and it was not known before.
    pub(crate) async fn moved(&mut self) {
        loop {
            self.seat.executors.changed(&self.seen).await;
            self.seen = self.seat.executors.live();
            if self.misplaced().is_some() {
                return;
            }
        }
    }

    /// Has its executors forget it.
    pub(crate) async fn release(&self) {
        let request = Request::Release(self.reign.clone());
        let owners = self.slots.iter().map(|slot| slot.owner.clone());
        let members: BTreeSet<Member> = self.seat.executors.live().into_iter().chain(owners).collect();
        for ended in join_all(members.iter().map(|member| self.ask(member, &request))).await {
            if let Err(error) = ended {
                tracing::debug!(%error, query = self.reign.query, "an executor was not told that a query has ended");
            }
        }
    }
}

/// Whether slots that are held leave an executor without any.
fn has_idle(held: &[(KeyRange, usize)], members: usize) -> bool {
    !held.is_empty() && (0..members).any(|member| held.iter().all(|(_, owner)| *owner != member))
}
