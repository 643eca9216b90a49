// What the upstream and the clients share: time, sockets, and giving up.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000ULL

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static inline void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static inline void *sized(void *old, size_t size) {
    void *made = realloc(old, size);
    if (made == NULL) die("no memory for %zu bytes", size);
    return made;
}

static inline void prepare_process(void) {
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1UL);  // otherwise every timer may be 50 us late
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

static inline void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // fails on unix sockets: no harm
}

// "unix:/path" or "127.0.0.1:8000" as an address.
static inline socklen_t address_of(const char *text, struct sockaddr_storage *room) {
    memset(room, 0, sizeof *room);
    if (strncmp(text, "unix:", 5) == 0) {
        struct sockaddr_un *unix_address = (struct sockaddr_un *)room;
        unix_address->sun_family = AF_UNIX;
        snprintf(unix_address->sun_path, sizeof unix_address->sun_path, "%s", text + 5);
        return sizeof *unix_address;
    }
    struct sockaddr_in *inet = (struct sockaddr_in *)room;
    const char *colon = strrchr(text, ':');
    char host[64] = "";
    if (colon == NULL || colon - text >= (long)sizeof host) die("no address: %s", text);
    memcpy(host, text, (size_t)(colon - text));
    inet->sin_family = AF_INET;
    inet->sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &inet->sin_addr) != 1) die("no address: %s", text);
    return sizeof *inet;
}

// Connected and non-blocking, or -1. `receive_bytes`: how much may lie unread, 0: as the system has it.
static inline int dial(const char *target, int receive_bytes) {
    struct sockaddr_storage address;
    socklen_t length = address_of(target, &address);
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("no socket: %s", strerror(errno));
    if (receive_bytes) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    no_delay(fd);
    if (connect(fd, (struct sockaddr *)&address, length) != 0) {
        close(fd);
        return -1;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static inline char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) die("cannot read %s", path);
    char *text = NULL;
    *size = 0;
    for (;;) {
        text = sized(text, *size + 65537);
        size_t more = fread(text + *size, 1, 65536, file);
        *size += more;
        if (more == 0) break;
    }
    text[*size] = 0;
    fclose(file);
    return text;
}

// A whole request: head and the body that lies in `body_path`.
static inline char *make_request(const char *path, const char *key, const char *body_path, size_t *size) {
    size_t body_size, head_size;
    char *body = read_file(body_path, &body_size), *request = sized(NULL, body_size + 4096);
    head_size = (size_t)snprintf(
        request, 4096,
        "POST %s HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer %s\r\n"
        "content-type: application/json\r\naccept: */*\r\nuser-agent: bench\r\n"
        "content-length: %zu\r\n\r\n",
        path, key, body_size);
    memcpy(request + head_size, body, body_size);
    free(body);
    *size = head_size + body_size;
    return request;
}
