//! Processes of a cluster within a test.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Actions, control_service};
use crate::cluster::link::{Links, incoming};

/// Serves actions on a free port until the second part is dropped; the first is where.
pub(crate) async fn serve(actions: Arc<dyn Actions>) -> (String, JoinSet<()>) {
    serve_at("127.0.0.1:0", actions).await
}

/// Serves actions at an address until the second part is dropped; the first is where.
pub(crate) async fn serve_at(address: &str, actions: Arc<dyn Actions>) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Links::plain().server().unwrap().add_service(control_service(actions));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { router.serve_with_incoming(incoming(listener)).await.unwrap() });
    (url, tasks)
}
