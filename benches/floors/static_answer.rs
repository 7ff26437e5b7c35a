//! What HTTP alone costs: answers every request with the bytes of a file, on the same web framework
//! and runtime as the server. `benches/compare` measures against it.
//!
//! static_answer PORT FILE

use std::error::Error;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(port), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("static_answer PORT FILE".into());
    };
    let answer = Bytes::from(std::fs::read(file)?);
    let respond = move || std::future::ready(([(CONTENT_TYPE, "application/json")], answer.clone()));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    axum::serve(listener, Router::new().fallback(respond)).await?;
    Ok(())
}
