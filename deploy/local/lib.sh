# Starts, watches and stops Java services, each in a directory of its own. Sourced by up, down and kill.
#
#   DIR/INSTANCE/{data,log,tmp,pid,port,host,lock}     JARS/SERVICE/*.jar, JARS/m2 (Maven's local repository)
#
# A service is kafka or cassandra: SERVICE/service.sh names its version, ports and command line. An instance of it is called like the
# service; further brokers of a Kafka cluster are kafka-2, kafka-3, …

services_known=(kafka cassandra)
for name in "${services_known[@]}"; do
    # shellcheck source=/dev/null
    . "$here/$name/service.sh"
done

program=deploy/local/$(basename "$0")
# How long a start may take; a loaded machine needs a minute for the first one.
wait_s=${LOCAL_WAIT_S:-180}

say() { echo "${instance:-local}: $*" >&2; }
fail() { say "$*"; exit 1; }
usage_error() { echo "$program: $* (see $program --help)" >&2; exit 2; }
fail_with_log() { # message file
    say "$1; the end of $2:"
    tail -n 40 "$2" >&2 || true
    exit 1
}

# The comment at the top of the script is its help.
help() { sed -n '2,/^[^#]/p' "$0" | sed -n 's/^# \{0,1\}//p'; exit 0; }
# The instances that there are in a directory.
instances() { # dir
    local name
    for name in "${services_known[@]}"; do
        find "$1" -mindepth 1 -maxdepth 1 -type d \( -name "$name" -o -name "$name-[2-9]" \) -printf '%f\n' 2>/dev/null | sort
    done
}
value() { [ $# -ge 2 ] && [ -n "$2" ] || usage_error "$1 needs a value"; printf '%s' "$2"; }
of() { local variable=${service}_$1; printf '%s' "${!variable}"; } # a setting of the service

absolute() { mkdir -p "$1" && (cd "$1" && pwd); }
port_open() { (exec 3<> "/dev/tcp/$1/$2") 2>/dev/null; } # host port
# Below the ports that the system gives to clients. Each instance draws from ports of its own, so that two that start at once do not draw
# the same.
free_port() { # host
    local drawn slot=0
    case "$instance" in kafka-*) slot=$((${instance#kafka-} - 1)) ;; cassandra) slot=9 ;; esac
    for _ in {1..100}; do
        drawn=$((20000 + slot * 1200 + RANDOM % 1200))
        [ "$drawn" != "${port:-}" ] && ! port_open "$1" "$drawn" && { echo "$drawn"; return; }
    done
    fail "found no free port on $1"
}

# Enters an instance: `instance`, its `service`, `home`, and the lock, so that two calls at once take turns. In a subshell.
enter() { # instance dir
    instance=$1 service=${1%%-*} home=$2/$1
    mkdir -p "$home/log" "$home/tmp"
    exec 9> "$home/lock"
    flock -w "$wait_s" 9 || fail "another call holds $home/lock"
}

# The pid file may be stale and its number another process's: our mark on the command line tells.
running() {
    local pid
    pid=$(cat "$home/pid" 2>/dev/null) && [ -n "$pid" ] || return 1
    case " $(ps -ww -o args= -p "$pid" 2>/dev/null) " in *" -Dlocal.service=$home "*) return 0 ;; esac
    return 1
}

# A process that ends looks gone before its sockets are.
wait_until_gone() {
    while running || port_open "$(cat "$home/host")" "$(cat "$home/port")"; do sleep 0.02; done
    rm -f "$home/pid"
}

java_major() { "$1" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1; }

# Sets `java`: of JAVA_HOME, of the path, or one that is installed beside them.
find_java() {
    local candidate major seen=""
    for candidate in ${JAVA_HOME:+"$JAVA_HOME/bin/java"} java /usr/lib/jvm/*17*/bin/java; do
        command -v "$candidate" > /dev/null 2>&1 || continue
        major=$(java_major "$candidate")
        if [ -n "$major" ] && "${service}_java_fits" "$major"; then
            java=$candidate
            return
        fi
        seen+=" $candidate is $major;"
    done
    fail "$(of title) needs Java $(of java), and there is none:${seen:- nothing is installed;}" \
        "apt-get install openjdk-17-jre-headless, or set JAVA_HOME"
}

# Jars from Maven into JARS/SERVICE, once for each content of its pom.
fetch_jars() { # jars
    local pom=$here/$service/pom.xml lib=$1/$service sum
    sum=$(cksum < "$pom")
    [ "$(cat "$lib/.pom" 2>/dev/null)" != "$sum" ] || return 0
    # One at a time: Maven's local repository is not made for two.
    exec 8> "$1/lock"
    flock 8
    [ "$(cat "$lib/.pom" 2>/dev/null)" != "$sum" ] || { exec 8>&-; return 0; }
    command -v mvn > /dev/null 2>&1 || fail "the jars of $(of title) are not in $lib, and Maven is not installed:" \
        "apt-get install maven, or name a directory that has them with --jars"
    say "fetching the jars of $(of title) with Maven (once)"
    # What is there stays until the new ones are: a broker that runs loads classes from it.
    rm -rf "$lib.new"
    mkdir -p "$lib.new"
    # A copy: Maven writes beside the pom.
    cp "$pom" "$lib.new/pom.xml"
    MAVEN_OPTS="-Djava.io.tmpdir=$home/tmp -XX:-UsePerfData ${MAVEN_OPTS:-}" \
        mvn -q -B -f "$lib.new/pom.xml" -Dmaven.repo.local="$1/m2" \
        dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$lib.new" > "$home/log/maven.log" 2>&1 ||
        fail_with_log "Maven could not fetch the jars" "$home/log/maven.log"
    echo "$sum" > "$lib.new/.pom"
    rm -rf "$lib"
    mv "$lib.new" "$lib"
    exec 8>&-
}

# Starts it if it does not run, and waits until it is ready. In a subshell.
start_service() { # instance dir jars host port heap; an empty port is the last one or the default, 0 any free one
    enter "$1" "$2"
    local jars=$3 host=$4 port=$5 heap=$6 started=$SECONDS command
    if running; then
        say "runs already: pid $(cat "$home/pid"), $(cat "$home/host"):$(cat "$home/port")"
        return
    fi
    [ -n "$port" ] || port=$(cat "$home/port" 2>/dev/null || of port_default)
    [ "$port" != 0 ] || port=$(free_port "$host")
    ! port_open "$host" "$port" || fail "port $port on $host is taken by another process: name another with --$service-port"
    find_java
    fetch_jars "$jars"
    "${service}_prepare" "$home" "$jars/$service" "$host" "$port" "$heap"
    echo "$host" > "$home/host"
    echo "$port" > "$home/port"
    local log=$home/log/$service.log
    [ ! -e "$log" ] || mv -f "$log" "$log.1"
    # It is looked into before the process has made it.
    : > "$log"
    # A session of its own, so that a Ctrl-C in this terminal does not reach it. libffi, JNA and Netty unpack native code into TMPDIR.
    TMPDIR="$home/tmp" setsid "$java" -Dlocal.service="$home" "${command[@]}" < /dev/null > "$log" 2>&1 9>&- &
    echo $! > "$home/pid"
    until grep -q -- "$(of ready)" "$log" && port_open "$host" "$port"; do
        if ! kill -0 "$(cat "$home/pid")" 2>/dev/null; then
            rm -f "$home/pid"
            fail_with_log "ended before it was ready" "$log"
        fi
        if [ $((SECONDS - started)) -ge "$wait_s" ]; then
            stop_running
            fail_with_log "was not ready after $wait_s s, and was stopped (LOCAL_WAIT_S=600 waits longer)" "$log"
        fi
        sleep 0.1
    done
    say "ready on $host:$port after $((SECONDS - started)) s, pid $(cat "$home/pid")"
}

# Ends the process that runs: asked first, killed after 30 s.
stop_running() {
    local pid
    pid=$(cat "$home/pid")
    # One that was stopped (SIGSTOP) hears nothing before it goes on.
    kill "$pid" && kill -CONT "$pid"
    for _ in {1..300}; do
        running || break
        sleep 0.1
    done
    if running; then
        say "pid $pid did not end in 30 s: killing it"
        kill -9 "$pid"
    fi
    wait_until_gone
}
