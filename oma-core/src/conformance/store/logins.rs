//! Logging in: how often it may be tried, and the session that comes of it.

use futures_util::future::join_all;

use super::super::runner::table;
use super::accounts::{hash, token_spec};
use super::tokens::session;
use super::*;
use crate::record::{Attempt, AttemptLimits, AttemptSubject, Login, UserChange};
use crate::state::Role;
use crate::{Timestamp, UserId};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_login_makes_a_session_and_is_noted,
        a_login_whose_password_is_another_by_now_is_refused,
        a_new_password_ends_every_session_and_no_other_token,
        a_user_who_is_not_active_any_more_has_no_session,
        too_many_attempts_lock_for_a_while,
        attempts_are_counted_for_each_subject,
        attempts_of_long_ago_do_not_count,
        a_login_forgets_the_attempts_before_it,
        of_many_attempts_at_once_no_more_than_the_limit_go_on,
        attempts_are_forgotten_with_time,
    ]
}

const LIMITS: AttemptLimits =
    AttemptLimits { attempts: 3, window: Duration::from_secs(600), lock: Duration::from_secs(900) };

fn ada() -> AttemptSubject {
    AttemptSubject::account("ada@example.com")
}

impl StoreSubject {
    async fn attempt(&self, subject: &AttemptSubject) -> Option<Timestamp> {
        match self.accounts.attempt(subject, &LIMITS).await.unwrap() {
            Attempt::Allowed => None,
            Attempt::Locked { until } => Some(until),
        }
    }

    async fn exhausted(&self, subject: &AttemptSubject) -> Timestamp {
        for _ in 0..LIMITS.attempts {
            assert_eq!(self.attempt(subject).await, None);
        }
        self.attempt(subject).await.unwrap()
    }
}

async fn a_login_makes_a_session_and_is_noted(store: StoreSubject) {
    let user = store.user("ada", Role::Viewer).await;
    store.clock.advance(Duration::from_secs(7));
    let login = session("secret", user.id, "ada", "ada@example.com");
    let token = store.accounts.log_in(&login).await.unwrap();
    assert_eq!((&token.id, token.user, token.kind), (&login.session.id, user.id, login.session.kind));
    let bearer = store.bearer("secret").await.unwrap();
    assert_eq!(bearer.user.last_login_at, Some(store.clock.now()));
    store.accounts.revoke(&token.id).await.unwrap();
    assert_eq!(store.bearer("secret").await, None);
}

async fn a_login_whose_password_is_another_by_now_is_refused(store: StoreSubject) {
    store.user("root", Role::Admin).await;
    let user = store.user("ada", Role::Viewer).await;
    let login = session("secret", user.id, "ada", "ada@example.com");
    let unknown = Login { user: UserId(999_999), ..login.clone() };
    assert_kind(store.accounts.log_in(&unknown).await, ErrorKind::PermissionDenied);
    let mut much = login.clone();
    much.session.role = Role::Admin;
    assert_kind(store.accounts.log_in(&much).await, ErrorKind::Invalid);
    let change = UserChange { password_hash: Some(hash("new")), ..UserChange::default() };
    store.accounts.change_user(user.id, &change).await.unwrap();
    assert_kind(store.accounts.log_in(&login).await, ErrorKind::PermissionDenied);
    let right = session("secret", user.id, "new", "ada@example.com");
    let inactive = UserChange { is_active: Some(false), ..UserChange::default() };
    store.accounts.change_user(user.id, &inactive).await.unwrap();
    assert_kind(store.accounts.log_in(&right).await, ErrorKind::PermissionDenied);
    assert_eq!(store.accounts.user(user.id).await.unwrap().unwrap().last_login_at, None);
}

async fn a_new_password_ends_every_session_and_no_other_token(store: StoreSubject) {
    let user = store.user("ada", Role::Viewer).await;
    let other = store.user("eve", Role::Viewer).await;
    for secret in ["one", "two"] {
        store.accounts.log_in(&session(secret, user.id, "ada", secret)).await.unwrap();
    }
    store.accounts.log_in(&session("eve's", other.id, "eve", "eve")).await.unwrap();
    store.accounts.mint(user.id, &token_spec("program", Role::Viewer)).await.unwrap();
    let change = UserChange { password_hash: Some(hash("new")), ..UserChange::default() };
    store.accounts.change_user(user.id, &change).await.unwrap();
    for (secret, is_good) in [("one", false), ("two", false), ("eve's", true), ("program", true)] {
        assert_eq!(store.bearer(secret).await.is_some(), is_good, "{secret}");
    }
}

async fn a_user_who_is_not_active_any_more_has_no_session(store: StoreSubject) {
    let user = store.user("ada", Role::Viewer).await;
    store.accounts.log_in(&session("secret", user.id, "ada", "ada")).await.unwrap();
    for is_active in [false, true] {
        let change = UserChange { is_active: Some(is_active), ..UserChange::default() };
        store.accounts.change_user(user.id, &change).await.unwrap();
        assert_eq!(store.bearer("secret").await, None, "active again: {is_active}");
    }
}

async fn too_many_attempts_lock_for_a_while(store: StoreSubject) {
    let until = store.exhausted(&ada()).await;
    assert_eq!(until, store.clock.now().after(LIMITS.lock));
    store.clock.advance(LIMITS.lock - Duration::from_millis(1));
    assert_eq!(store.attempt(&ada()).await, Some(until), "what is refused is not counted");
    store.clock.advance(Duration::from_millis(1));
    store.exhausted(&ada()).await;
}

async fn attempts_are_counted_for_each_subject(store: StoreSubject) {
    store.exhausted(&ada()).await;
    for other in [AttemptSubject::account("eve"), AttemptSubject::address([192, 0, 2, 1].into())] {
        assert_eq!(store.attempt(&other).await, None);
    }
}

async fn attempts_of_long_ago_do_not_count(store: StoreSubject) {
    for _ in 0..7 {
        for _ in 1..LIMITS.attempts {
            assert_eq!(store.attempt(&ada()).await, None);
        }
        store.clock.advance(LIMITS.window);
    }
}

async fn a_login_forgets_the_attempts_before_it(store: StoreSubject) {
    let user = store.user("ada", Role::Viewer).await;
    for number in 0..4 {
        for _ in 0..LIMITS.attempts {
            assert_eq!(store.attempt(&ada()).await, None);
        }
        let login = session(&format!("secret-{number}"), user.id, "ada", "ada@example.com");
        store.accounts.log_in(&login).await.unwrap();
    }
}

async fn of_many_attempts_at_once_no_more_than_the_limit_go_on(store: StoreSubject) {
    let attempts = join_all((0..12).map(|_| {
        let accounts = store.accounts.clone();
        async move { accounts.attempt(&ada(), &LIMITS).await }
    }));
    let allowed = attempts.await.into_iter().filter(|attempt| matches!(attempt, Ok(Attempt::Allowed)));
    assert_eq!(allowed.count(), 3);
}

async fn attempts_are_forgotten_with_time(store: StoreSubject) {
    let until = store.exhausted(&ada()).await;
    store.accounts.tidy(until).await.unwrap();
    assert_eq!(store.attempt(&ada()).await, Some(until), "it is locked still");
    store.clock.advance(LIMITS.lock + LIMITS.window);
    store.accounts.tidy(store.clock.now()).await.unwrap();
    assert_eq!(store.attempt(&ada()).await, None);
}
