//! The wire between an operator and the API server: counts the calls, and can be cut.

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::Notify;
use tower::{BoxError, Layer, Service};

/// One request that went over the wire.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it was sent.
    pub at: Instant,
    /// HTTP method.
    pub method: Method,
    /// Path without the query.
    pub path: String,
    /// The query; empty if none.
    pub query: String,
}

impl Call {
    /// Whether it changes anything.
    pub fn is_write(&self) -> bool {
        self.method != Method::GET
    }

    /// Whether it asks for a new pod.
    pub fn makes_pod(&self) -> bool {
        self.method == Method::POST && self.path.ends_with("/pods")
    }

    /// Whether it is about a Lease.
    pub fn is_lease(&self) -> bool {
        self.path.contains("/leases")
    }
}

/// Sees every call of the clients made with it.
#[derive(Clone, Default)]
pub struct Wire(Arc<State>);

/// What happens to the n-th write, counted from 1. It reaches the server in both cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The wire is cut after it, for good.
    CutAfter(usize),
    /// Its answer is an error; all is well again after it.
    AnswerLost(usize),
}

#[derive(Default)]
struct State {
    calls: Mutex<Vec<Call>>,
    trouble: Option<Trouble>,
    cut: Notify,
    /// While this holds a text, calls whose path and query contain it fail.
    failing: Mutex<Option<String>>,
}

impl Wire {
    /// A wire that has one trouble.
    pub fn with(trouble: Trouble) -> Self {
        Self(Arc::new(State { trouble: Some(trouble), ..State::default() }))
    }

    /// A client of `config` behind this wire.
    pub fn client(&self, config: Config) -> kube::Result<Client> {
        Ok(ClientBuilder::try_from(config)?.with_layer(self).build())
    }

    /// Returns when the wire was cut.
    pub async fn was_cut(&self) {
        self.0.cut.notified().await;
    }

    /// From now on calls whose path and query contain `text` fail; none fails with `None`.
    pub fn fail(&self, text: Option<&str>) {
        *self.0.failing.lock().unwrap_or_else(PoisonError::into_inner) = text.map(str::to_owned);
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().clone()
    }

    /// Every write so far, as `METHOD path`, Leases left out.
    pub fn writes(&self) -> Vec<String> {
        let calls = self.calls();
        let writes = calls.iter().filter(|call| call.is_write() && !call.is_lease());
        writes.map(|call| format!("{} {}", call.method, call.path)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fails(&self, call: &Call) -> bool {
        let failing = self.0.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.as_ref().is_some_and(|text| format!("{}?{}", call.path, call.query).contains(text))
    }

    /// Notes the call and says what becomes of it.
    fn admit(&self, request: &Request<Body>) -> Fate {
        let call = Call {
            at: Instant::now(),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
        };
        if self.fails(&call) {
            return Fate::Fail;
        }
        let is_write = call.is_write();
        let mut calls = self.lock();
        let writes = calls.iter().filter(|call| call.is_write()).count() + usize::from(is_write);
        let fate = match self.0.trouble {
            Some(Trouble::CutAfter(limit)) if is_write && writes > limit => return Fate::Lost,
            Some(Trouble::CutAfter(limit)) if is_write && writes == limit => Fate::Last,
            Some(Trouble::AnswerLost(number)) if is_write && writes == number => Fate::NoAnswer,
            _ => Fate::Through,
        };
        calls.push(call);
        fate
    }
}

enum Fate {
    Through,
    /// It reaches the server, then the wire is cut.
    Last,
    /// The wire is cut already.
    Lost,
    /// It reaches the server, its answer is lost.
    NoAnswer,
    Fail,
}

impl<S> Layer<S> for Wire {
    type Service = Wired<S>;

    fn layer(&self, inner: S) -> Wired<S> {
        Wired { wire: self.clone(), inner }
    }
}

/// A client's service behind a [`Wire`].
pub struct Wired<S> {
    wire: Wire,
    inner: S,
}

impl<S, B> Service<Request<Body>> for Wired<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.wire.admit(&request) {
            Fate::Through => Box::pin(self.inner.call(request)),
            Fate::Last => {
                let (answer, wire) = (self.inner.call(request), self.wire.clone());
                Box::pin(async move {
                    let _ = answer.await;
                    wire.0.cut.notify_one();
                    std::future::pending().await
                })
            }
            Fate::NoAnswer => {
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let _ = answer.await;
                    Err("the test's wire loses this answer".into())
                })
            }
            Fate::Lost => Box::pin(std::future::pending()),
            Fate::Fail => Box::pin(async { Err("the test's wire fails this call".into()) }),
        }
    }
}
