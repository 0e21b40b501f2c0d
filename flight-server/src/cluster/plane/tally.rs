//! What has come of the shares for one task, counted against the markers that end them.
//!
//! The end of a stream is never taken for the end of what was sent: a panic or a broken connection can look the same.

use datafusion::arrow::array::BooleanArray;
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::error::Result as DataFusionResult;

use super::frame;
use super::problem::failed;

/// The count for one task.
#[derive(Debug)]
pub(crate) struct Tally {
    task: u32,
    route: u32,
    frames: Vec<RecordBatch>,
    rows: u64,
    markers: usize,
    announced: u64,
}

impl Tally {
    /// Nothing yet of what comes to `task` by `route`.
    pub(crate) const fn new(task: u32, route: u32) -> Self {
        Self { task, route, frames: Vec::new(), rows: 0, markers: 0, announced: 0 }
    }

    /// Counts a batch; its markers are taken out.
    ///
    /// # Errors
    /// Fails for frames of another task.
    pub(crate) fn add(&mut self, batch: RecordBatch) -> DataFusionResult<()> {
        if let Some(other) = frame::routes(&batch)?.values().iter().find(|&&route| route != self.route) {
            let (task, route) = (self.task, self.route);
            return Err(failed(&format!("task {task}, whose route is {route}, got a frame of route {other}")));
        }
        let rest = self.without_markers(batch)?;
        if rest.num_rows() > 0 {
            self.rows += rest.num_rows() as u64;
            self.frames.push(rest);
        }
        Ok(())
    }

    /// Whether a marker has come: from a single sender that is all.
    pub(crate) const fn is_ended(&self) -> bool {
        self.markers > 0
    }

    /// The frames, in the order in which they came.
    ///
    /// # Errors
    /// Fails unless all that `senders` have sent is there.
    pub(crate) fn complete(self, senders: usize) -> DataFusionResult<Vec<RecordBatch>> {
        let Self { task, rows, markers, announced, .. } = self;
        if markers != senders || rows != announced {
            return Err(failed(&format!(
                "of task {task} only a part has come: {rows} of {announced} frames, {markers} of {senders} ends"
            )));
        }
        Ok(self.frames)
    }

    fn without_markers(&mut self, batch: RecordBatch) -> DataFusionResult<RecordBatch> {
        let kinds = frame::kinds(&batch)?.values();
        if !kinds.contains(&frame::END) {
            return Ok(batch);
        }
        let bodies = frame::bodies(&batch)?;
        for (row, _) in kinds.iter().enumerate().filter(|(_, kind)| **kind == frame::END) {
            self.markers += 1;
            self.announced = self.announced.saturating_add(frame::announced(bodies.value(row))?);
        }
        let kept: Vec<bool> = kinds.iter().map(|kind| *kind != frame::END).collect();
        Ok(filter_record_batch(&batch, &BooleanArray::from(kept))?)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::compute::concat_batches;

    use super::*;

    fn share(route: u32) -> Vec<RecordBatch> {
        let batch = frame::frames([(1, [7].as_slice()), (2, [8].as_slice())]).unwrap();
        frame::share(&[batch], route).unwrap()
    }

    fn rows(complete: DataFusionResult<Vec<RecordBatch>>) -> usize {
        complete.unwrap().iter().map(RecordBatch::num_rows).sum()
    }

    #[test]
    fn shares_of_all_senders_are_complete_in_whatever_batches_they_come() {
        let mut tally = Tally::new(0, 4);
        for batch in share(4) {
            tally.add(batch).unwrap();
        }
        tally.add(concat_batches(&frame::frame_schema(), &share(4)).unwrap()).unwrap();
        assert_eq!(rows(tally.complete(2)), 4);
    }

    #[test]
    fn a_frame_or_a_marker_that_is_missing_is_noticed() {
        for missing in 0..2 {
            let mut tally = Tally::new(3, 4);
            for (_, batch) in share(4).into_iter().enumerate().filter(|(part, _)| *part != missing) {
                tally.add(batch).unwrap();
            }
            let error = tally.complete(1).unwrap_err().to_string();
            assert!(error.contains("task 3"), "{error}");
        }
    }

    #[test]
    fn frames_of_another_route_are_refused() {
        let refused = Tally::new(0, 4).add(share(5).remove(0)).unwrap_err().to_string();
        assert!(refused.contains("route 5"), "{refused}");
    }
}
