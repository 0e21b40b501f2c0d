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
    #[prost(message, repeated, tag = "3")]
    parts: Vec<PartMessage>,
    #[prost(bytes = "bytes", tag = "4")]
    routing: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct PartMessage {
    #[prost(message, optional, tag = "1")]
    assignment: Option<AssignmentMessage>,
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
            Some(NodeKind::Send(message)) => Ok(Arc::new(send(message)?)),
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
        let parts = send.parts().iter().map(|part| PartMessage { assignment: part.as_ref().map(assignment_message) });
        let (job, tasks, routing) = (id_bytes(send.job()), number(send.tasks())?, send.routing().clone());
        return Ok(NodeKind::Send(SendMessage { job, tasks, parts: parts.collect(), routing }));
    }
    if let Some(apply) = node.downcast_ref::<ApplyExec>() {
        let assignments = apply.assignments().iter().map(assignment_message);
        let (assignments, senders) = (assignments.collect(), number(apply.senders())?);
        return Ok(NodeKind::Apply(ApplyMessage { assignments, senders }));
    }
    if node.downcast_ref::<GuardExec>().is_some() {
        return Ok(NodeKind::Guard(GuardMessage {}));
    }
    Err(internal_datafusion_err!("{} is no node of a job", node.name()))
}

fn send(SendMessage { job, tasks, parts, routing }: SendMessage) -> DataFusionResult<SendExec> {
    let parts = parts.into_iter().map(|part| part.assignment.map(assignment).transpose());
    let parts: Vec<Option<Assignment>> = parts.collect::<DataFusionResult<_>>()?;
    Ok(SendExec::new(id(&job)?, tasks as usize, routing, parts.into()))
}

fn apply(message: ApplyMessage, input: Arc<dyn ExecutionPlan>) -> DataFusionResult<ApplyExec> {
    let assignments = message.assignments.into_iter().map(assignment);
    let assignments: Vec<Assignment> = assignments.collect::<DataFusionResult<_>>()?;
    Ok(ApplyExec::new(input, assignments.into(), message.senders as usize))
}

fn assignment_message(assignment: &Assignment) -> AssignmentMessage {
    AssignmentMessage { incarnation: id_bytes(assignment.incarnation), spec: assignment.spec.clone() }
}

fn assignment(AssignmentMessage { incarnation, spec }: AssignmentMessage) -> DataFusionResult<Assignment> {
    Ok(Assignment { incarnation: id(&incarnation)?, spec })
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
        let part = Assignment { incarnation: Uuid::new_v4(), spec: Bytes::from_static(b"part") };
        Arc::new(SendExec::new(Uuid::new_v4(), 3, Bytes::from_static(b"routing"), Arc::from([Some(part), None])))
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
