//! Answers that come line by line.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::stream::{self, Stream};
use reqwest::Response;
use serde::de::DeserializeOwned;

use super::error::Failure;
use super::http::promptly;
use crate::backend::{ListEnd, ListLine};

/// No line is longer.
const LONGEST: usize = 1 << 20;

/// An answer that is read line by line.
pub(super) struct Lines {
    response: Response,
    buffer: BytesMut,
}

impl Lines {
    pub(super) fn new(response: Response) -> Self {
        Self { response, buffer: BytesMut::new() }
    }

    /// The next line; an answer that ends is cut short, since whoever reads lines knows which is the last one.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let mut looked_at = 0;
        loop {
            if let Some(end) = self.buffer[looked_at..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(looked_at + end);
                self.buffer.advance(1);
                return serde_json::from_slice(&line).map_err(Failure::Garbled);
            }
            looked_at = self.buffer.len();
            if looked_at > LONGEST {
                return Err(Failure::TooLong);
            }
            let chunk = self.response.chunk().await.map_err(Failure::of_request)?;
            self.buffer.extend_from_slice(&chunk.ok_or(Failure::CutShort)?);
        }
    }

    /// What comes after the lines that were read.
    pub(super) fn into_response(self) -> Response {
        self.response
    }
}

/// The entries of a list, each waited for so long. One that is cut short ends with an error.
pub(super) fn entries<T: DeserializeOwned>(
    response: Response,
    limit: Duration,
) -> impl Stream<Item = Result<T, Failure>> {
    stream::unfold(Some((Lines::new(response), 0)), move |state| async move {
        let (mut lines, count) = state?;
        match promptly(limit, lines.next()).await {
            Ok(ListLine::Entry(entry)) => Some((Ok(entry), Some((lines, count + 1)))),
            Ok(ListLine::Problem(problem)) => {
                Some((Err(Failure::Refused(Box::new(problem))), Some((lines, count))))
            }
            Ok(ListLine::End(ListEnd { entries })) if entries == count => None,
            Ok(ListLine::End(_)) => Some((Err(Failure::CutShort), None)),
            Err(failure) => Some((Err(failure), None)),
        }
    })
}
