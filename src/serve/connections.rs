//! Connections that do not wait for ever: a client that takes nothing of its answer for too long has left, and
//! so has one whose request does not come.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use futures::future::{Either, select};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};

/// How long is waited for the address to accept again where the system has no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests until `end` is over, and then those that have begun. A client has `patience` for each
/// request's head, and for what it takes of an answer.
pub(super) async fn serve(
    listener: TcpListener,
    routes: Router,
    patience: Option<Duration>,
    end: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience);
    let service = TowerToHyperService::new(routes);
    let open = GracefulShutdown::new();
    let mut end = pin!(end);
    // The end is asked for first: a crowd of clients does not put it off.
    while let Either::Right((stream, _)) = select(end.as_mut(), pin!(accept(&listener))).await {
        let stream = Connection::new(stream, patience.unwrap_or(Duration::MAX));
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), service.clone()));
        tokio::spawn(async move {
            if let Err(problem) = connection.await {
                log::debug!("a connection ended: {problem}");
            }
        });
    }
    drop(listener);
    open.shutdown().await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // A token is a packet: none of them waits for the next one.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(problem) => {
                log::warn!("cannot accept a connection: {problem}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection whose writes take at most a while.
struct Connection<Io> {
    io: Io,
    patience: Duration,
    /// When the write at hand has taken too long.
    until: Option<Pin<Box<Sleep>>>,
}

impl<Io> Connection<Io> {
    fn new(io: Io, patience: Duration) -> Self {
        Connection { io, patience, until: None }
    }

    /// What a write has come to: an error where it has waited for too long.
    fn timed<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.until = None;
            return outcome;
        }
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(self.patience)));
        match until.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Connection<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, to)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Connection<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(context, bytes);
        self.timed(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(context, parts);
        self.timed(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(context);
        self.timed(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(context);
        self.timed(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Wake, Waker};

    struct Quiet;

    impl Wake for Quiet {
        fn wake(self: std::sync::Arc<Self>) {}
    }

    /// Takes a number of bytes, and nothing more.
    struct Narrow(usize);

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = self.0.min(bytes.len());
            self.0 -= taken;
            if taken == 0 { Poll::Pending } else { Poll::Ready(Ok(taken)) }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_write_that_nobody_takes_ends_the_connection() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let patience = Duration::from_millis(60);
            let mut connection = Connection::new(Narrow(3), patience);
            let waker = Waker::from(std::sync::Arc::new(Quiet));
            let mut context = Context::from_waker(&waker);
            let mut write = |connection: &mut Connection<Narrow>| {
                pin!(connection).as_mut().poll_write(&mut context, b"four")
            };
            assert!(matches!(write(&mut connection), Poll::Ready(Ok(3))));
            assert!(write(&mut connection).is_pending());
            // What is taken in time starts the time anew.
            connection.io.0 = 1;
            sleep(patience * 2).await;
            assert!(matches!(write(&mut connection), Poll::Ready(Ok(1))));
            assert!(write(&mut connection).is_pending());
            sleep(patience * 2).await;
            let Poll::Ready(Err(problem)) = write(&mut connection) else { panic!("it waits on") };
            assert_eq!(problem.kind(), io::ErrorKind::TimedOut);
        });
    }
}
