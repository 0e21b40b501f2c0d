//! The bytes of the nodes of a job's plan.
//!
//! Codecs are asked one after the other and the first to answer is the one that reads, so nodes of others are refused.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::internal_datafusion_err;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use prost::Message;
use uuid::Uuid;

use super::nodes::{ApplyExec, Assignment, GuardExec, SendExec};

/// The codec; what nodes need of a process is an extension of its sessions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codec;

#[derive(Clone, PartialEq, Message)]
struct NodeMessage {
    #[prost(oneof = "NodeKind", tags = "1, 2, 3")]
    node: Option<NodeKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum NodeKind {
    #[prost(message, tag = "1")]
    Send(SendMessage),
    #[prost(message, tag = "2")]
    Apply(ApplyMessage),
    #[prost(message, tag = "3")]
    Guard(GuardMessage),
}

#[derive(Clone, PartialEq, Message)]
struct SendMessage {
    #[prost(bytes = "bytes", tag = "1")]
    job: Bytes,
    #[prost(uint32, tag = "2")]
    tasks: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ApplyMessage {
    #[prost(message, repeated, tag = "1")]
    assignments: Vec<AssignmentMessage>,
    #[prost(uint32, tag = "2")]
    senders: u32,
}

#[derive(Clone, PartialEq, Message)]
struct AssignmentMessage {
    #[prost(bytes = "bytes", tag = "1")]
    incarnation: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    spec: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct GuardMessage {}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &TaskContext,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        match NodeMessage::decode(bytes).map_err(|error| DataFusionError::External(Box::new(error)))?.node {
            Some(NodeKind::Send(message)) => Ok(Arc::new(send(&message)?)),
            Some(NodeKind::Apply(message)) => Ok(Arc::new(apply(message, only(inputs)?)?)),
            Some(NodeKind::Guard(GuardMessage {})) => Ok(GuardExec::around(only(inputs)?)),
            None => Err(internal_datafusion_err!("a node of a job is of a kind that is not known here")),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> DataFusionResult<()> {
        let message = NodeMessage { node: Some(message(node.as_ref())?) };
        message.encode(bytes).map_err(|error| DataFusionError::External(Box::new(error)))
    }
}

fn message(node: &dyn ExecutionPlan) -> DataFusionResult<NodeKind> {
    if let Some(send) = node.downcast_ref::<SendExec>() {
        return Ok(NodeKind::Send(SendMessage { job: id_bytes(send.job()), tasks: number(send.tasks())? }));
    }
    if let Some(apply) = node.downcast_ref::<ApplyExec>() {
        let assignments = apply.assignments().iter().map(|assignment| AssignmentMessage {
            incarnation: id_bytes(assignment.incarnation),
            spec: assignment.spec.clone(),
        });
        let (assignments, senders) = (assignments.collect(), number(apply.senders())?);
        return Ok(NodeKind::Apply(ApplyMessage { assignments, senders }));
    }
    if node.downcast_ref::<GuardExec>().is_some() {
        return Ok(NodeKind::Guard(GuardMessage {}));
    }
    Err(internal_datafusion_err!("{} is no node of a job", node.name()))
}

fn send(message: &SendMessage) -> DataFusionResult<SendExec> {
    Ok(SendExec::new(id(&message.job)?, message.tasks as usize))
}

fn apply(message: ApplyMessage, input: Arc<dyn ExecutionPlan>) -> DataFusionResult<ApplyExec> {
    let mut assignments = Vec::with_capacity(message.assignments.len());
    for AssignmentMessage { incarnation, spec } in message.assignments {
        assignments.push(Assignment { incarnation: id(&incarnation)?, spec });
    }
    Ok(ApplyExec::new(input, assignments.into(), message.senders as usize))
}

fn only(inputs: &[Arc<dyn ExecutionPlan>]) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    match inputs {
        [input] => Ok(Arc::clone(input)),
        _ => Err(internal_datafusion_err!("a node of a job has {} inputs, not one", inputs.len())),
    }
}

fn id_bytes(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn id(bytes: &[u8]) -> DataFusionResult<Uuid> {
    Uuid::from_slice(bytes).map_err(|error| DataFusionError::External(Box::new(error)))
}

fn number(count: usize) -> DataFusionResult<u32> {
    u32::try_from(count).map_err(|_| internal_datafusion_err!("a job of {count} tasks is too large"))
}

#[cfg(test)]
mod tests {
    use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
    use datafusion_proto::physical_plan::DefaultPhysicalProtoConverter;

    use super::*;

    fn leaf() -> Arc<dyn ExecutionPlan> {
        Arc::new(SendExec::new(Uuid::new_v4(), 3))
    }

    #[track_caller]
    fn comes_back(node: Arc<dyn ExecutionPlan>) {
        let (shown, inputs): (_, Vec<_>) = (format!("{node:?}"), node.children().into_iter().cloned().collect());
        let (mut bytes, converter) = (Vec::new(), DefaultPhysicalProtoConverter {});
        Codec.try_encode(node, &mut bytes, &converter).unwrap();
        let back = Codec.try_decode(&bytes, &inputs, &TaskContext::default(), &converter).unwrap();
        assert_eq!(format!("{back:?}"), shown);
    }

    #[test]
    fn every_node_comes_back_as_it_was() {
        let assignment =
            |spec: &'static [u8]| Assignment { incarnation: Uuid::new_v4(), spec: Bytes::from_static(spec) };
        let assignments = Arc::from([assignment(b"a"), assignment(b""), assignment(b"\xff\x00")]);
        comes_back(leaf());
        comes_back(GuardExec::around(leaf()));
        comes_back(Arc::new(ApplyExec::new(leaf(), assignments, 2)));
    }

    #[test]
    fn nodes_of_others_are_refused() {
        let other = Arc::new(CoalescePartitionsExec::new(leaf()));
        let mut bytes = Vec::new();
        let refused = Codec.try_encode(other, &mut bytes, &DefaultPhysicalProtoConverter {}).unwrap_err();
        assert!(refused.to_string().contains("CoalescePartitionsExec"), "{refused}");
        assert!(bytes.is_empty());
    }
}
