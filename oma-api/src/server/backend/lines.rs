//! Lists of any length, a line for each entry.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, BoxStream, StreamExt};
use oma_core::{Error, ErrorKind, Result};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Problem;
use crate::backend::{ListEnd, ListLine};

/// Entries that wait for a reader.
const WAITING: usize = 64;

/// A task that ends with whoever waits for it.
struct Owned(JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where entries go on their way to the reader.
pub(super) type Entries<T> = mpsc::Sender<Result<T>>;

/// An answer with all entries that a task sends. The task ends when nobody reads any more.
pub(super) fn lines<T, F, Fut>(fill: F) -> Response
where
    T: Serialize + Send + 'static,
    F: FnOnce(Entries<T>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (send, receive) = mpsc::channel(WAITING);
    let filling = Owned(tokio::spawn(fill(send)));
    let entries = stream::unfold(Some((receive, filling)), async |state| {
        let (mut receive, mut filling) = state?;
        match receive.recv().await {
            Some(entry) => Some((Some(entry), Some((receive, filling)))),
            // It is whole only if whoever filled it came to its end (L21).
            None => match (&mut filling.0).await {
                Ok(()) => Some((None, None)),
                Err(lost) => {
                    let error = Error::new(ErrorKind::Internal, "list", "all entries").with_source(lost);
                    Some((Some(Err(error)), None))
                }
            },
        }
    });
    let lines = entries.scan(0, |count, entry: Option<Result<T>>| {
        let line = match entry {
            Some(Ok(entry)) => {
                *count += 1;
                ListLine::Entry(entry)
            }
            Some(Err(error)) => ListLine::Problem(Problem::new(&error)),
            None => ListLine::End(ListEnd { entries: *count }),
        };
        let read = serde_json::to_string(&line).map(|text| text + "\n");
        std::future::ready(Some(read))
    });
    let chunks = lines.ready_chunks(WAITING).map(|chunk| {
        let read: Result<String, serde_json::Error> = chunk.into_iter().collect();
        read.map(Bytes::from)
    });
    let mut response = Body::from_stream(chunks).into_response();
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Sends what a backend lists, until its end or until nobody reads any more.
pub(super) async fn send<T, W: From<T>>(mut listed: BoxStream<'_, Result<T>>, entries: Entries<W>) {
    while let Some(entry) = listed.next().await {
        if entries.send(entry.map(W::from)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn l21_a_list_whose_maker_died_does_not_end_as_whole() {
        let answer = lines::<u32, _, _>(async |entries| {
            entries.send(Ok(1)).await.expect("it is read");
            panic!("of the backend");
        });
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("\"problem\"") && !text.contains("\"end\""), "{text}");
    }
}
