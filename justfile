# One command for each thing that is done often: `just` lists them (https://just.systems). Each line also works when it is typed by hand.

_list:
    @just --list --unsorted

# Run the demo and open its page
demo:
    cargo run --release -- demo

# Unit and property tests: no services, no browser
quick:
    tests/run --quick

# All tests, real Kafka and Cassandra included
test:
    tests/run

# What guards main
ci:
    .ci/run

# Measure everything
bench:
    bench/run

# Write schemas/openapi.json from the endpoints
openapi:
    KINDRED_WRITE_OPENAPI=1 cargo test -p kindred-api openapi

# Write the tables of docs/SECURITY.md from the endpoints and the tests
security:
    KINDRED_WRITE_SECURITY=1 cargo test -p kindred-api security

# Write the TypeScript client from schemas/openapi.json
client:
    cd clients/typescript && npm ci && npm run generate

# Write all that is generated
generate: openapi security client
