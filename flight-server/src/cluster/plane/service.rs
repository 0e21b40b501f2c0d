//! A service whose handlers run on another runtime than its connections.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::JoinError;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use super::runtimes::spawn_on;

/// The service; a call that its client gives up is dropped.
#[derive(Debug, Clone)]
pub(crate) struct OnCpu<S> {
    service: S,
    cpu: Handle,
}

impl<S> OnCpu<S> {
    /// `service`, with its handlers on `cpu`.
    pub(crate) const fn new(service: S, cpu: Handle) -> Self {
        Self { service, cpu }
    }
}

impl<S> Service<http::Request<Body>> for OnCpu<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = spawn_on(&self.cpu, self.service.call(request));
        Box::pin(async move { answer.await.unwrap_or_else(|error| Ok(unanswered(&error))) })
    }
}

impl<S: NamedService> NamedService for OnCpu<S> {
    const NAME: &'static str = S::NAME;
}

/// Not codes of broken connections for a panic: the process is there, and would panic again.
fn unanswered(error: &JoinError) -> http::Response<Body> {
    let status = if error.is_panic() {
        Status::aborted(format!("a handler panicked: {error}"))
    } else {
        Status::unavailable("the process ends")
    };
    status.into_http()
}
