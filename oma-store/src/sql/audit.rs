//! `audit_logs` and `audit_chain`.

use super::statements;

macro_rules! entry {
    () => {
        "SELECT id, user_id, actor, action, resource_type, resource_id, details, ip_address, ts, previous_hash, hash \
         FROM audit_logs"
    };
}

macro_rules! chain {
    () => {
        "SELECT name, last_id, last_hash, last_ts, pruned_through FROM audit_chain WHERE name = 'head'"
    };
}

statements! {
    /// Where the trail ends.
    CHAIN = chain!();
    /// The same, and nobody else adds to it for the rest of the transaction.
    LOCK_CHAIN = chain!(),
        mysql: concat!(chain!(), " FOR UPDATE"),
        postgres: concat!(chain!(), " FOR NO KEY UPDATE");
    BEGIN_CHAIN = "INSERT INTO audit_chain (name, last_id, last_hash, last_ts, pruned_through) VALUES ('head', ?, ?, ?, ?)";
    MOVE_CHAIN = "UPDATE audit_chain SET last_id = ?, last_hash = ?, last_ts = ?, pruned_through = ? WHERE name = 'head'";
    INSERT = "INSERT INTO audit_logs (id, user_id, actor, action, resource_type, resource_id, details, ip_address, ts, \
              previous_hash, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    BEFORE = concat!(entry!(), " WHERE id < ? ORDER BY id DESC LIMIT ?");
    OF_ACTOR = concat!(entry!(), " WHERE actor = ? AND id < ? ORDER BY id DESC LIMIT ?");
    OF_RESOURCE = concat!(entry!(), " WHERE resource_type = ? AND resource_id = ? AND id < ? ORDER BY id DESC LIMIT ?");
    AFTER = concat!(entry!(), " WHERE id > ? ORDER BY id LIMIT ?");
    OF_ACTOR_AFTER = concat!(entry!(), " WHERE actor = ? AND id > ? ORDER BY id LIMIT ?");
    OF_RESOURCE_AFTER = concat!(entry!(), " WHERE resource_type = ? AND resource_id = ? AND id > ? ORDER BY id LIMIT ?");
    /// The last one before a time.
    LAST_BEFORE = concat!(entry!(), " WHERE ts < ? ORDER BY ts DESC, id DESC LIMIT 1");
    NTH_OLDEST = "SELECT id FROM audit_logs WHERE id <= ? ORDER BY id LIMIT 1 OFFSET ?";
    DELETE_UP_TO = "DELETE FROM audit_logs WHERE id <= ?";
}
