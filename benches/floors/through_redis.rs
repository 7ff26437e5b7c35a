//! What HTTP and the client of Redis alone cost: answers `/HMGET/KEY/FIELD/FIELD…` as webdis does, on the same
//! web framework, runtime, allocator and client as the server, and does nothing else: no schema, no event
//! times, no expiry, no statuses, no keys, no metrics. `benches/compare` shows it beside the server.
//!
//! through_redis PORT REDIS_PORT

use std::error::Error;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use fred::prelude::{Builder, Client, ClientLike, Config, HashesInterface};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(port), Some(redis)) = (arguments.next(), arguments.next()) else {
        return Err("through_redis PORT REDIS_PORT".into());
    };
    let client = Builder::from_config(Config::from_url(&format!("redis://127.0.0.1:{redis}"))?).build()?;
    client.init().await?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, Router::new().fallback(hmget).with_state(client)).await?;
    Ok(())
}

async fn hmget(State(client): State<Client>, uri: Uri) -> Result<Response, (StatusCode, String)> {
    let mut parts = uri.path().split('/').skip(1);
    let (Some("HMGET"), Some(key)) = (parts.next(), parts.next()) else {
        return Err((StatusCode::NOT_FOUND, "/HMGET/KEY/FIELD…".to_owned()));
    };
    let fields: Vec<&str> = parts.collect();
    let values: Result<Vec<Option<String>>, _> = client.hmget(key, fields).await;
    let values = values.map_err(|error| (StatusCode::BAD_GATEWAY, error.to_string()))?;
    let values = serde_json::to_string(&values);
    let values = values.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([(CONTENT_TYPE, "application/json")], format!("{{\"HMGET\":{values}}}")).into_response())
}
