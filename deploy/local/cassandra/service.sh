# Cassandra, one node. Sourced by lib.sh's callers.
cassandra_title="Cassandra 5.0.9"
cassandra_java="17 (Cassandra 5 starts on no later one)"
cassandra_java_fits() { [ "$1" -eq 17 ]; }
cassandra_port_default=19042
cassandra_heap_default=768m
cassandra_ready="Starting listening for CQL clients"

# Sets `command`, the arguments of java.
cassandra_prepare() { # home lib host port heap
    local home=$1 lib=$2 host=$3 port=$4 heap=$5 package
    sed "s|@HOST@|$host|g" "$here/cassandra/cassandra.yaml" > "$home/cassandra.yaml"
    local agent=("$lib"/jamm-*.jar)
    command=(-Xms"$heap" -Xmx"$heap" -Xss256k -XX:+UseG1GC -XX:MaxGCPauseMillis=100 -XX:+ExitOnOutOfMemoryError
        -XX:-UsePerfData -Djava.awt.headless=true -Djava.io.tmpdir="$home/tmp" -Djna.tmpdir="$home/tmp"
        -Duser.home="$home/tmp" -javaagent:"${agent[0]}" -cp "$lib/*"
        -Djdk.attach.allowAttachSelf=true -Dio.netty.tryReflectionSetAccessible=true
        -Dchronicle.announcer.disable=true)
    # What upstream's start script opens for Java 17, as far as a node needs it.
    for package in java.base/jdk.internal.misc java.base/java.lang.ref java.management.rmi/com.sun.jmx.remote.internal.rmi \
        java.rmi/sun.rmi.registry java.rmi/sun.rmi.server java.sql/java.sql jdk.attach/sun.tools.attach jdk.unsupported/sun.misc; do
        command+=(--add-exports "$package=ALL-UNNAMED")
    done
    for package in java.base/java.io java.base/java.lang java.base/java.lang.module java.base/java.lang.reflect \
        java.base/java.util java.base/jdk.internal.loader java.base/jdk.internal.math java.base/jdk.internal.module \
        java.base/jdk.internal.ref java.base/jdk.internal.reflect java.base/jdk.internal.util.jar java.base/sun.nio.ch \
        jdk.management/com.sun.management.internal; do
        command+=(--add-opens "$package=ALL-UNNAMED")
    done
    # The last two: a single node has nobody to wait for.
    command+=(-Dcassandra-foreground=yes -Dcassandra.storagedir="$home/data" -Dcassandra.logdir="$home/log"
        -Dcassandra.config="file://${home// /%20}/cassandra.yaml" -Dlogback.configurationFile="$here/cassandra/logback.xml"
        -Dcassandra.native_transport_port="$port" -Dcassandra.storage_port="$(free_port "$host")"
        -Dcassandra.ring_delay_ms=0 -Dcassandra.skip_wait_for_gossip_to_settle=0
        org.apache.cassandra.service.CassandraDaemon)
    mkdir -p "$home/data"
}
