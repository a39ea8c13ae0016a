//! Users.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::super::runner::table;
use super::*;
use crate::record::{Email, PasswordHash, TokenHash, TokenSpec, User, UserChange, UserSpec};
use crate::state::{Role, TokenKind};
use crate::{TokenId, UserId};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_user_is_found_by_number_and_by_address,
        an_address_belongs_to_one_user_whatever_its_case,
        users_are_listed_by_number,
        a_change_changes_what_it_names_and_nothing_else,
        the_last_active_admin_stays,
        of_two_last_admins_who_demote_each_other_at_once_one_stays,
        a_removed_user_is_gone_with_its_tokens,
        of_many_first_starts_at_once_one_adds_the_first_user,
        there_is_no_first_user_beside_another,
    ]
}

pub(super) fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

pub(super) fn hash(text: &str) -> PasswordHash {
    PasswordHash::parse(format!("$2b$12${text}")).unwrap()
}

pub(super) fn user_spec(name: &str, role: Role) -> UserSpec {
    let email = email(&format!("{name}@example.com"));
    UserSpec { email, full_name: format!("{name} ü 😀"), role, password_hash: hash(name) }
}

pub(super) fn token_spec(secret: &str, role: Role) -> TokenSpec {
    TokenSpec {
        id: TokenId::mint(),
        kind: TokenKind::Api,
        name: secret.to_owned(),
        role,
        hash: TokenHash::of(secret),
        jobs: BTreeSet::new(),
        lifetime: Duration::from_secs(3600),
        address: Some([192, 0, 2, 7].into()),
    }
}

impl StoreSubject {
    pub(super) async fn user(&self, name: &str, role: Role) -> User {
        self.accounts.add_user(&user_spec(name, role)).await.unwrap()
    }
}

fn demoted() -> UserChange {
    UserChange { role: Some(Role::Viewer), ..UserChange::default() }
}

async fn a_user_is_found_by_number_and_by_address(store: StoreSubject) {
    let added = store.user("ada", Role::Operator).await;
    assert!(added.is_active && added.last_login_at.is_none());
    assert_eq!((added.full_name.as_str(), added.role), ("ada ü 😀", Role::Operator));
    assert_eq!(added.created_at, store.clock.now());
    assert_eq!(store.accounts.user(added.id).await.unwrap(), Some(added.clone()));
    let found = store.accounts.credentials(&email("Ada@example.com")).await.unwrap().unwrap();
    assert_eq!((found.user, found.password_hash), (added, hash("ada")));
    assert_eq!(store.accounts.user(UserId(999_999)).await.unwrap(), None);
    assert_eq!(store.accounts.credentials(&email("eve@example.com")).await.unwrap(), None);
}

async fn an_address_belongs_to_one_user_whatever_its_case(store: StoreSubject) {
    let ada = store.user("ada", Role::Viewer).await;
    assert_kind(store.accounts.add_user(&user_spec("ADA", Role::Admin)).await, ErrorKind::AlreadyExists);
    assert_eq!(store.accounts.users(None).try_collect::<Vec<_>>().await.unwrap(), [ada]);
}

async fn users_are_listed_by_number(store: StoreSubject) {
    let mut added = Vec::new();
    for name in ["zoe", "ada", "eve"] {
        added.push(store.user(name, Role::Viewer).await);
    }
    assert_eq!(store.accounts.users(None).try_collect::<Vec<_>>().await.unwrap(), added);
    assert!(added.is_sorted_by_key(|user| user.id));
    let behind = store.accounts.users(Some(added[0].id)).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(behind, added[1..]);
}

async fn a_change_changes_what_it_names_and_nothing_else(store: StoreSubject) {
    store.user("root", Role::Admin).await;
    let ada = store.user("ada", Role::Viewer).await;
    store.clock.advance(Duration::from_secs(5));
    let now = store.clock.now();
    let nothing = store.accounts.change_user(ada.id, &UserChange::default()).await.unwrap();
    assert_eq!(nothing, User { updated_at: now, ..ada.clone() });
    let named = UserChange { full_name: Some("Ada".to_owned()), ..UserChange::default() };
    let changed = store.accounts.change_user(ada.id, &named).await.unwrap();
    assert_eq!(changed, User { full_name: "Ada".to_owned(), ..nothing });
    let rest = UserChange {
        role: Some(Role::Admin),
        is_active: Some(false),
        password_hash: Some(hash("new")),
        full_name: None,
    };
    let changed = store.accounts.change_user(ada.id, &rest).await.unwrap();
    assert_eq!((changed.role, changed.is_active, changed.full_name.as_str()), (Role::Admin, false, "Ada"));
    let found = store.accounts.credentials(&ada.email).await.unwrap().unwrap();
    assert_eq!((found.user, found.password_hash), (changed, hash("new")));
    assert_kind(store.accounts.change_user(UserId(999_999), &rest).await, ErrorKind::NotFound);
}

async fn the_last_active_admin_stays(store: StoreSubject) {
    let (one, other) = (store.user("one", Role::Admin).await, store.user("two", Role::Admin).await);
    let inactive = UserChange { is_active: Some(false), ..UserChange::default() };
    store.accounts.change_user(other.id, &inactive).await.unwrap();
    for change in [&inactive, &demoted()] {
        assert_kind(store.accounts.change_user(one.id, change).await, ErrorKind::Conflict);
    }
    assert_kind(store.accounts.remove_user(one.id).await, ErrorKind::Conflict);
    assert_eq!(store.accounts.user(one.id).await.unwrap(), Some(one.clone()));
    let active = UserChange { is_active: Some(true), ..UserChange::default() };
    store.accounts.change_user(other.id, &active).await.unwrap();
    store.accounts.remove_user(one.id).await.unwrap();
}

async fn of_two_last_admins_who_demote_each_other_at_once_one_stays(store: StoreSubject) {
    let mut last: Option<User> = None;
    for round in 0..5 {
        let one = match last.take() {
            Some(last) => last,
            None => store.user("first", Role::Admin).await,
        };
        let other = store.user(&format!("admin-{round}"), Role::Admin).await;
        let (change, admins) = (demoted(), [one, other]);
        let outcomes =
            join_all(admins.each_ref().map(|admin| store.accounts.change_user(admin.id, &change))).await;
        let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(done, 1, "round {round}: {outcomes:?}");
        last =
            admins.into_iter().zip(&outcomes).find_map(|(admin, outcome)| outcome.is_err().then_some(admin));
    }
}

async fn a_removed_user_is_gone_with_its_tokens(store: StoreSubject) {
    store.user("root", Role::Admin).await;
    let ada = store.user("ada", Role::Viewer).await;
    let spec = token_spec("secret", Role::Viewer);
    store.accounts.mint(ada.id, &spec).await.unwrap();
    store.accounts.remove_user(ada.id).await.unwrap();
    assert_eq!(store.accounts.user(ada.id).await.unwrap(), None);
    assert_eq!(store.accounts.bearer(&spec.hash).await.unwrap(), None);
    assert_eq!(store.accounts.token(&spec.id).await.unwrap(), None);
    store.accounts.remove_user(ada.id).await.unwrap();
    let again = store.user("ada", Role::Viewer).await;
    assert_ne!(again.id, ada.id, "a number is given once");
}

async fn of_many_first_starts_at_once_one_adds_the_first_user(store: StoreSubject) {
    let spec = user_spec("admin", Role::Admin);
    let tokens: Vec<_> = (0..8).map(|number| token_spec(&format!("secret-{number}"), Role::Admin)).collect();
    let starts = tokens.iter().map(|token| store.accounts.add_first_user(&spec, token));
    let added: Vec<_> = join_all(starts).await.into_iter().filter_map(Result::unwrap).collect();
    let [(user, token)] = &added[..] else { panic!("{added:?}") };
    assert_eq!(store.accounts.users(None).try_collect::<Vec<_>>().await.unwrap(), std::slice::from_ref(user));
    assert_eq!(
        store.accounts.tokens(None, None).try_collect::<Vec<_>>().await.unwrap(),
        std::slice::from_ref(token)
    );
    let known = tokens.iter().find(|spec| spec.id == token.id).unwrap();
    assert_eq!(store.accounts.bearer(&known.hash).await.unwrap().unwrap().role, Role::Admin);
}

async fn there_is_no_first_user_beside_another(store: StoreSubject) {
    let much = token_spec("secret", Role::Admin);
    let little = user_spec("ada", Role::Viewer);
    assert_kind(store.accounts.add_first_user(&little, &much).await, ErrorKind::Invalid);
    let ada = store.user("ada", Role::Viewer).await;
    let admin = user_spec("admin", Role::Admin);
    assert_eq!(store.accounts.add_first_user(&admin, &much).await.unwrap(), None);
    assert_eq!(store.accounts.users(None).try_collect::<Vec<_>>().await.unwrap(), [ada]);
}
