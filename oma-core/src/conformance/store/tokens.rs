//! Tokens of users, and the jobs that agents see.

use std::collections::BTreeSet;

use super::super::runner::table;
use super::accounts::{hash, token_spec, user_spec};
use super::*;
use crate::record::{AccessToken, Bearer, Login, TokenHash, TokenSpec, UserChange};
use crate::state::{Role, TokenKind};
use crate::{TokenId, UserId};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_token_tells_its_bearer_until_it_expires,
        a_revoked_token_is_nobodys_at_once,
        a_token_may_never_do_more_than_its_user,
        tokens_of_a_user_who_is_not_active_are_nobodys,
        a_token_is_made_for_a_known_active_user_and_known_jobs,
        no_two_tokens_have_one_secret,
        tokens_are_listed_by_user,
        it_is_noted_when_a_token_was_used,
        a_token_sees_the_jobs_that_it_was_made_for_and_those_it_was_let_see,
        tokens_that_ended_long_ago_are_forgotten,
    ]
}

impl StoreSubject {
    pub(super) async fn bearer(&self, secret: &str) -> Option<Bearer> {
        self.accounts.bearer(&TokenHash::of(secret)).await.unwrap()
    }

    async fn minted(&self, user: UserId, secret: &str, role: Role) -> AccessToken {
        self.accounts.mint(user, &token_spec(secret, role)).await.unwrap()
    }

    pub(super) async fn known_job(&self, number: usize) -> JobId {
        self.queued(number, |_, _| ()).await
    }
}

async fn a_token_tells_its_bearer_until_it_expires(store: StoreSubject) {
    let ada = store.user("ada", Role::Operator).await;
    let spec = token_spec("secret", Role::Viewer);
    let token = store.accounts.mint(ada.id, &spec).await.unwrap();
    assert_eq!((token.user, token.kind, token.role), (ada.id, TokenKind::Api, Role::Viewer));
    assert_eq!((token.address, token.expires_at), (spec.address, store.clock.now().after(spec.lifetime)));
    let bearer = store.bearer("secret").await.unwrap();
    assert_eq!((bearer.user, bearer.role, bearer.token.id), (ada, Role::Viewer, spec.id));
    assert_eq!(store.bearer("another").await, None);
    store.clock.advance(spec.lifetime - Duration::from_millis(1));
    assert!(store.bearer("secret").await.is_some());
    store.clock.advance(Duration::from_millis(1));
    assert_eq!(store.bearer("secret").await, None);
}

async fn a_revoked_token_is_nobodys_at_once(store: StoreSubject) {
    let ada = store.user("ada", Role::Viewer).await;
    let token = store.minted(ada.id, "secret", Role::Viewer).await;
    assert!(store.bearer("secret").await.is_some());
    let revoked = store.accounts.revoke(&token.id).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(store.clock.now()));
    assert_eq!(store.bearer("secret").await, None);
    store.clock.advance(Duration::from_secs(1));
    assert_eq!(store.accounts.revoke(&token.id).await.unwrap(), revoked);
    assert_kind(store.accounts.revoke(&TokenId::mint()).await, ErrorKind::NotFound);
}

async fn a_token_may_never_do_more_than_its_user(store: StoreSubject) {
    store.user("root", Role::Admin).await;
    let ada = store.user("ada", Role::Operator).await;
    let much = token_spec("much", Role::Admin);
    assert_kind(store.accounts.mint(ada.id, &much).await, ErrorKind::Invalid);
    store.minted(ada.id, "secret", Role::Operator).await;
    for role in [Role::Viewer, Role::Agent, Role::Admin] {
        let change = UserChange { role: Some(role), ..UserChange::default() };
        store.accounts.change_user(ada.id, &change).await.unwrap();
        assert_eq!(store.bearer("secret").await.unwrap().role, role.min(Role::Operator));
    }
}

async fn tokens_of_a_user_who_is_not_active_are_nobodys(store: StoreSubject) {
    store.user("root", Role::Admin).await;
    let ada = store.user("ada", Role::Viewer).await;
    store.minted(ada.id, "secret", Role::Viewer).await;
    let active = |is_active| UserChange { is_active: Some(is_active), ..UserChange::default() };
    store.accounts.change_user(ada.id, &active(false)).await.unwrap();
    assert_eq!(store.bearer("secret").await, None);
    store.accounts.change_user(ada.id, &active(true)).await.unwrap();
    assert!(store.bearer("secret").await.is_some());
}

async fn a_token_is_made_for_a_known_active_user_and_known_jobs(store: StoreSubject) {
    store.user("root", Role::Admin).await;
    let ada = store.user("ada", Role::Agent).await;
    let spec = token_spec("secret", Role::Agent);
    assert_kind(store.accounts.mint(UserId(999_999), &spec).await, ErrorKind::NotFound);
    let nowhere = TokenSpec { jobs: BTreeSet::from([JobId::parse("job-none").unwrap()]), ..spec.clone() };
    assert_kind(store.accounts.mint(ada.id, &nowhere).await, ErrorKind::NotFound);
    let inactive = UserChange { is_active: Some(false), ..UserChange::default() };
    store.accounts.change_user(ada.id, &inactive).await.unwrap();
    assert_kind(store.accounts.mint(ada.id, &spec).await, ErrorKind::Conflict);
    assert!(store.accounts.tokens(None, None).try_collect::<Vec<_>>().await.unwrap().is_empty());
}

async fn no_two_tokens_have_one_secret(store: StoreSubject) {
    let ada = store.user("ada", Role::Viewer).await;
    let token = store.minted(ada.id, "secret", Role::Viewer).await;
    let same_secret = token_spec("secret", Role::Viewer);
    assert_kind(store.accounts.mint(ada.id, &same_secret).await, ErrorKind::AlreadyExists);
    let same_id = TokenSpec { id: token.id, ..token_spec("other", Role::Viewer) };
    assert_kind(store.accounts.mint(ada.id, &same_id).await, ErrorKind::AlreadyExists);
}

async fn tokens_are_listed_by_user(store: StoreSubject) {
    let (ada, eve) = (store.user("ada", Role::Viewer).await, store.user("eve", Role::Viewer).await);
    let mut all = Vec::new();
    for (user, secret) in [(&ada, "one"), (&eve, "two"), (&ada, "three")] {
        all.push(store.minted(user.id, secret, Role::Viewer).await);
    }
    all.sort_by(|one, other| one.id.cmp(&other.id));
    let listed = async |user| store.accounts.tokens(user, None).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(listed(None).await, all);
    all.retain(|token| token.user == ada.id);
    assert_eq!(listed(Some(ada.id)).await, all);
    assert!(listed(Some(UserId(999_999))).await.is_empty());
    let behind = store.accounts.tokens(Some(ada.id), Some(all[0].id.clone()));
    assert_eq!(behind.try_collect::<Vec<_>>().await.unwrap(), all[1..]);
    assert_eq!(store.accounts.token(&all[0].id).await.unwrap(), Some(all[0].clone()));
    assert_eq!(store.accounts.token(&TokenId::mint()).await.unwrap(), None);
}

async fn it_is_noted_when_a_token_was_used(store: StoreSubject) {
    let ada = store.user("ada", Role::Viewer).await;
    let token = store.minted(ada.id, "secret", Role::Viewer).await;
    assert_eq!(token.last_used_at, None);
    let used = async || store.accounts.token(&token.id).await.unwrap().unwrap().last_used_at.unwrap();
    store.bearer("secret").await.unwrap();
    assert_eq!(used().await, store.clock.now());
    store.clock.advance(Duration::from_secs(61));
    store.bearer("secret").await.unwrap();
    assert_eq!(used().await, store.clock.now());
}

async fn a_token_sees_the_jobs_that_it_was_made_for_and_those_it_was_let_see(store: StoreSubject) {
    let ada = store.user("ada", Role::Agent).await;
    let jobs = [store.known_job(1).await, store.known_job(2).await, store.known_job(3).await];
    let given = BTreeSet::from([jobs[0].clone()]);
    let spec = TokenSpec { jobs: given.clone(), ..token_spec("secret", Role::Agent) };
    store.accounts.mint(ada.id, &spec).await.unwrap();
    let other = store.minted(ada.id, "other", Role::Agent).await;
    assert_eq!(store.bearer("secret").await.unwrap().jobs, given);
    for _ in 0..2 {
        store.accounts.grant(&spec.id, &jobs[1]).await.unwrap();
    }
    assert_eq!(
        store.bearer("secret").await.unwrap().jobs,
        BTreeSet::from([jobs[0].clone(), jobs[1].clone()])
    );
    assert!(store.bearer("other").await.unwrap().jobs.is_empty(), "another token of the same user");
    assert_kind(store.accounts.grant(&TokenId::mint(), &jobs[1]).await, ErrorKind::NotFound);
    let nowhere = JobId::parse("job-none").unwrap();
    assert_kind(store.accounts.grant(&other.id, &nowhere).await, ErrorKind::NotFound);
}

async fn tokens_that_ended_long_ago_are_forgotten(store: StoreSubject) {
    let ada = store.accounts.add_user(&user_spec("ada", Role::Viewer)).await.unwrap();
    let revoked = store.minted(ada.id, "revoked", Role::Viewer).await;
    store.accounts.revoke(&revoked.id).await.unwrap();
    store.minted(ada.id, "expired", Role::Viewer).await;
    let long = TokenSpec { lifetime: Duration::from_secs(86_400), ..token_spec("good", Role::Viewer) };
    store.accounts.mint(ada.id, &long).await.unwrap();
    assert_eq!(store.accounts.tidy(store.clock.now()).await.unwrap(), 0, "one ends just now");
    store.clock.advance(Duration::from_secs(7200));
    assert_eq!(store.accounts.tidy(store.clock.now()).await.unwrap(), 2);
    let left: Vec<_> = store.accounts.tokens(None, None).try_collect().await.unwrap();
    assert_eq!(left.iter().map(|token| &token.id).collect::<Vec<_>>(), [&long.id]);
    assert!(store.bearer("good").await.is_some());
}

pub(super) fn session(secret: &str, user: UserId, password: &str, typed: &str) -> Login {
    Login {
        user,
        password_hash: hash(password),
        subject: crate::record::AttemptSubject::account(typed),
        session: TokenSpec { kind: TokenKind::Session, ..token_spec(secret, Role::Viewer) },
    }
}
