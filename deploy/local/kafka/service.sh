# Kafka in KRaft mode: the first broker is the controller, too; further ones (`brokers` of them in all) belong to it. Sourced by lib.sh's
# callers.
kafka_title="Kafka 4.4.0"
kafka_java="17 or later"
kafka_java_fits() { [ "$1" -ge 17 ]; }
kafka_port_default=19092
kafka_heap_default=512m
kafka_ready="Kafka Server started"

# Sets `command`, the arguments of java.
kafka_prepare() { # home lib host port heap
    local home=$1 lib=$2 host=$3 port=$4 heap=$5 id
    local jvm=(-Xms"$heap" -Xmx"$heap" -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:+ExitOnOutOfMemoryError
        -XX:-UsePerfData -Djava.awt.headless=true -Djava.io.tmpdir="$home/tmp"
        -Dlog4j2.configurationFile="$here/kafka/log4j2.properties" -cp "$lib/*")
    local first=${home%/*}/kafka roles=broker,controller listeners=PLAINTEXT://$host:$port node=1 controller
    if [ "$instance" = kafka ]; then
        # The others look for it where it was.
        controller=$(cat "$home/controller" 2>/dev/null || echo "$host:$(free_port "$host")")
        echo "$controller" > "$home/controller"
        [ -n "$brokers" ] || brokers=$(cat "$home/brokers" 2>/dev/null || echo 1)
        echo "$brokers" > "$home/brokers"
        listeners+=,CONTROLLER://$controller
    else
        for _ in $(seq $((wait_s * 10))); do
            [ ! -e "$first/data/meta.properties" ] || break
            sleep 0.1
        done
        [ -e "$first/data/meta.properties" ] || fail "the first broker is not there: deploy/local/up kafka --kafka-brokers N starts all"
        roles=broker node=${instance#kafka-} controller=$(cat "$first/controller") brokers=$(cat "$first/brokers")
        id=$(sed -n 's/^cluster.id=//p' "$first/data/meta.properties")
    fi
    sed -e "s|@DATA@|$home/data|" -e "s|@HOST@|$host|g" -e "s|@PORT@|$port|g" -e "s|@CONTROLLER@|$controller|g" \
        -e "s|@ROLES@|$roles|" -e "s|@NODE@|$node|" -e "s|@LISTENERS@|$listeners|" -e "s|@REPLICAS@|$((brokers < 3 ? brokers : 3))|" \
        -e "s|@IN_SYNC@|$((brokers < 3 ? 1 : 2))|" "$here/kafka/server.properties" > "$home/server.properties"
    if [ ! -e "$home/data/meta.properties" ]; then
        # 16 random bytes in base64url, as Kafka's own tool makes them; a leading '-' would look like an option.
        [ -n "${id:-}" ] || id=A$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c 2-22)
        "$java" -Dlog.level=WARN "${jvm[@]}" kafka.tools.StorageTool format --cluster-id "$id" \
            --config "$home/server.properties" > "$home/log/format.log" 2>&1 ||
            fail_with_log "could not format the data directory" "$home/log/format.log"
    fi
    command=("${jvm[@]}" kafka.Kafka "$home/server.properties")
}
