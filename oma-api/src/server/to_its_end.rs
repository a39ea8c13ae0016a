//! What goes on when whoever asked goes away.

use std::fmt::Display;

use oma_core::{Error, ErrorKind};
use tracing::Instrument as _;

/// Does something to its end, also when nobody waits for the answer any more (L18): what was begun and given up in the middle would wait
/// for the end of a lease, or for the next start.
pub(super) async fn to_its_end<T, E>(
    operation: &'static str,
    resource: impl Display,
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    let done = tokio::spawn(work.in_current_span()).await;
    done.unwrap_or_else(|lost| {
        Err(Error::new(ErrorKind::Internal, operation, resource).with_source(lost).into())
    })
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_goes_on_when_nobody_waits_and_a_panic_is_an_answer() {
        let (begin, begun) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let work = async move {
            begun.await.unwrap();
            tell.send(7).unwrap();
            Ok::<(), Error>(())
        };
        let mut asked = Box::pin(to_its_end("ask", "somebody", work));
        assert!(futures_util::poll!(&mut asked).is_pending());
        drop(asked);
        begin.send(()).unwrap();
        assert_eq!(told.await.unwrap(), 7);
        let broken = to_its_end::<(), Error>("ask", "somebody", async { panic!("for the case") }).await;
        assert_eq!(broken.unwrap_err().kind(), ErrorKind::Internal);
    }
}
