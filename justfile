# Lists the recipes.
default:
    @just --list

# Runs everything a change must pass; installs nothing.
check:
    .ci/run --no-install

# Runs the tests; what a machine lacks is shown as ignored.
test *args:
    cargo test --workspace --all-features {{ args }}

# Formats the code.
fmt:
    cargo fmt --all

# Lints the code.
lint:
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# Replicates a disk, changes it, replicates the changes, verifies.
demo *args:
    cargo run --release --bin oma -- demo {{ args }}

# Compares our copy with qemu-img convert and nbdcopy.
bench *args:
    cargo run --release --bin bench-copy -- {{ args }}

# Measures the appliance's API under many clients, while jobs run.
bench-api *args:
    cargo run --release -p oma-benches --features api --bin bench-api -- {{ args }}

# Measures a device's blocking threads against io_uring.
bench-io *args:
    cargo run --release -p oma-benches --features io --bin bench-io -- {{ args }}

# Measures our NBD server and client against their peers.
bench-nbd *args:
    cargo run --release -p oma-benches --features nbd --bin bench-nbd -- {{ args }}

# Measures the store on SQLite, MariaDB and PostgreSQL.
bench-store *args:
    cargo run --release -p oma-benches --features store --bin bench-store -- {{ args }}

# Measures verification against b3sum, and repair against a full copy.
bench-verify *args:
    cargo run --release -p oma-benches --bin bench-verify -- {{ args }}

# Writes the document of the appliance's routes anew.
openapi:
    cargo run --bin omad -- openapi > docs/openapi.json

# Fuzzes one target for a minute.
fuzz target:
    RUSTC_BOOTSTRAP=1 cargo fuzz run {{ target }} -- -max_total_time=60
