# Kafka, one broker in KRaft mode. Sourced by lib.sh's callers.
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
    sed -e "s|@DATA@|$home/data|" -e "s|@HOST@|$host|g" -e "s|@PORT@|$port|g" \
        -e "s|@CONTROLLER_PORT@|$(free_port "$host")|g" "$here/kafka/server.properties" > "$home/server.properties"
    if [ ! -e "$home/data/meta.properties" ]; then
        # 16 random bytes in base64url, as Kafka's own tool makes them; a leading '-' would look like an option.
        id=A$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c 2-22)
        "$java" -Dlog.level=WARN "${jvm[@]}" kafka.tools.StorageTool format --cluster-id "$id" \
            --config "$home/server.properties" > "$home/log/format.log" 2>&1 ||
            fail_with_log "could not format the data directory" "$home/log/format.log"
    fi
    command=("${jvm[@]}" kafka.Kafka "$home/server.properties")
}
