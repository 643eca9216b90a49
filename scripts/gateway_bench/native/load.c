// Clients: many connections in one thread, each with one request at a time.
//
//   load TARGET PATH KEY BODY_FILE CLIENTS WARM_S SECONDS RATE ARRIVALS CORE PIDS
//
// RATE 0: closed loop, each client asks again when it has its answer. Otherwise so many requests a
// second in all, whoever is free takes the next, and latency counts from when a request was due, not from
// when it was sent. ARRIVALS: "even" or "poisson". The eight digits after '#' in the body are counted up.
// PIDS ("1,2" or "-"): processes whose CPU time is counted while measured, CORE: a core, -1: none.
// Prints one line of JSON: what came between the end of the warm-up and the end.
#include "common.h"
#include <math.h>

#define READ_BYTES (256 * 1024)
#define SUB_BITS 8  // a bucket is 1/256 wide
#define BUCKETS ((64 - SUB_BITS + 1) << SUB_BITS)

enum { IDLE, IN_HEAD, IN_BODY, IN_SIZE, IN_DATA, IN_DATA_END, IN_TRAILER };

struct client {
    int fd, state, status, is_stream, is_closing, line_bytes;
    size_t sent, left, head_used;
    uint64_t due_ns, first_ns;
    char last;  // byte of the body, for events
    char tail[16];
    size_t tail_used;
    char head[8192];
};

struct times {
    uint64_t buckets[BUCKETS], count;
    double sum_ns;
};

static const char *target;
static char *request, *counter_at;
static size_t request_size;
static int poll_fd, clients;
static struct client *all;
static int *idle, idle_count;
static uint64_t *backlog, backlog_first, backlog_end;
#define BACKLOG (1 << 20)
static double rate;
static int is_poisson, is_measuring;
static uint64_t answers, failed, refused, events, frames, body_bytes, asked;
static struct times whole, first;
static char complaint[400];

static void note(struct times *times, uint64_t ns) {
    int power = ns >> SUB_BITS ? 63 - __builtin_clzll(ns) - SUB_BITS : 0;
    times->buckets[((uint64_t)power << SUB_BITS) + (ns >> power)]++;
    times->count++;
    times->sum_ns += (double)ns;
}

static double quantile_ms(const struct times *times, double share) {
    uint64_t wanted = (uint64_t)ceil(share * (double)times->count), seen = 0;
    for (uint64_t at = 0; at < BUCKETS; at++) {
        seen += times->buckets[at];
        if (seen < wanted || seen == 0) continue;
        uint64_t power = at >> SUB_BITS, within = at & ((1 << SUB_BITS) - 1);
        if (power > 0) power--, within |= 1 << SUB_BITS;
        return ((double)within + 0.5) * pow(2, (double)power) / 1e6;
    }
    return -1;
}

static void ask(struct client *c, uint64_t due_ns);
static void connect_again(struct client *c);

static void complain(const char *what, const char *text, size_t size) {
    if (complaint[0]) return;
    size_t used = (size_t)snprintf(complaint, sizeof complaint, "%s: ", what);
    for (size_t at = 0; at < size && used < sizeof complaint - 1; at++)
        complaint[used++] = text[at] < ' ' || text[at] == '"' || text[at] == '\\' ? ' ' : text[at];
}

static void rest(struct client *c) {
    c->state = IDLE;
    if (c->is_closing) connect_again(c);
    if (rate == 0) return ask(c, now_ns());
    if (backlog_first < backlog_end) return ask(c, backlog[backlog_first++ % BACKLOG]);
    idle[idle_count++] = (int)(c - all);
}

static void end_answer(struct client *c) {
    int is_good = c->status == 200 && (!c->is_stream || memmem(c->tail, c->tail_used, "[DONE]", 6) != NULL);
    if (c->status == 200 && !is_good) complain("a stream without [DONE]", c->tail, c->tail_used);
    uint64_t now = now_ns();
    if (is_measuring && is_good) {
        answers++;
        note(&whole, now - c->due_ns);
        note(&first, c->first_ns - c->due_ns);
    } else if (is_measuring) {
        failed++;
    }
    rest(c);
}

static void lose(struct client *c) {
    close(c->fd);
    c->fd = -1;
    c->is_closing = 1;
    if (c->state == IDLE) return connect_again(c);
    if (is_measuring) failed++;
    complain("the connection ended before the answer did", c->head, c->head_used);
    rest(c);
}

static void connect_again(struct client *c) {
    if (c->fd >= 0) close(c->fd);
    c->is_closing = 0;
    for (int tries = 0; (c->fd = dial(target, 0)) < 0; tries++) {
        if (tries == 2000) die("nobody listens at %s: %s", target, strerror(errno));
        usleep(1000);
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, .data.ptr = c};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &event);
}

static void send_more(struct client *c) {
    while (c->sent < request_size) {
        ssize_t sent = write(c->fd, request + c->sent, request_size - c->sent);
        if (sent < 0) return;  // full, or broken: then reading tells
        c->sent += (size_t)sent;
    }
}

static void ask(struct client *c, uint64_t due_ns) {
    if (counter_at != NULL) {
        char digits[9];
        snprintf(digits, sizeof digits, "%08x", (unsigned)asked);
        memcpy(counter_at, digits, 8);
    }
    asked++;
    c->due_ns = due_ns;
    c->first_ns = 0;
    c->state = IN_HEAD;
    c->sent = c->head_used = c->tail_used = 0;
    c->last = 0;
    send_more(c);
}

static int take_head(struct client *c, const char **data, size_t *size) {
    size_t before = c->head_used, take = sizeof c->head - 1 - before;
    if (take > *size) take = *size;
    memcpy(c->head + before, *data, take);
    c->head[before + take] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (end == NULL) {
        if (take < *size) die("a head of more than 8 KiB");
        c->head_used += take;
        *size = 0;
        return 0;
    }
    size_t head_size = (size_t)(end - c->head) + 4, used = head_size - before;
    c->head[head_size - 1] = 0;
    c->head_used = head_size;
    *data += used;
    *size -= used;
    c->status = atoi(c->head + 9);
    c->is_stream = strcasestr(c->head, "\r\ncontent-type: text/event-stream") != NULL;
    c->is_closing = strcasestr(c->head, "\r\nconnection: close") != NULL;
    if (c->status != 200) {
        if (is_measuring) refused++;
        complain(c->head, *data, *size);
    }
    const char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->left = length ? strtoul(length + 17, NULL, 10) : 0;
    c->state = length ? IN_BODY : IN_SIZE;
    c->line_bytes = 0;
    return 1;
}

static void take_body(struct client *c, const char *data, size_t size) {
    if (c->first_ns == 0) c->first_ns = now_ns();
    if (is_measuring) body_bytes += size;
    if (!c->is_stream) return;
    const char *at = data, *end = data + size;
    uint64_t found = c->last == '\n' && *data == '\n';
    while (at < end - 1 && (at = memchr(at, '\n', (size_t)(end - 1 - at))) != NULL)
        if (*++at == '\n') found++, at++;
    if (is_measuring) events += found;
    c->last = end[-1];
    size_t kept = size < sizeof c->tail ? size : sizeof c->tail, old = sizeof c->tail - kept;
    if (old > c->tail_used) old = c->tail_used;
    memmove(c->tail, c->tail + c->tail_used - old, old);
    memcpy(c->tail + old, end - kept, kept);
    c->tail_used = old + kept;
}

// One step of the answer's framing; false when the answer is over.
static int take(struct client *c, const char **data, size_t *size) {
    if (c->state == IN_HEAD) {
        if (!take_head(c, data, size)) return 1;
        return c->state == IN_SIZE || c->left > 0;
    }
    if (c->state == IN_BODY || c->state == IN_DATA) {
        size_t part = c->left < *size ? c->left : *size;
        take_body(c, *data, part);
        *data += part, *size -= part, c->left -= part;
        if (c->left > 0) return 1;
        if (c->state == IN_BODY) return 0;
        c->state = IN_DATA_END, c->line_bytes = 0;
        return 1;
    }
    char byte = *(*data)++;
    (*size)--;
    if (c->state == IN_DATA_END) {
        if (byte == '\n') c->state = IN_SIZE, c->left = 0;
    } else if (byte == '\n' && c->state == IN_TRAILER) {
        if (c->line_bytes == 0) return 0;
        c->line_bytes = 0;
    } else if (byte == '\n') {
        if (is_measuring && c->left) frames++;
        c->state = c->left ? IN_DATA : IN_TRAILER, c->line_bytes = 0;
    } else if (byte != '\r') {
        c->line_bytes++;
        if (c->state == IN_SIZE) c->left = 16 * c->left + (size_t)(byte <= '9' ? byte - '0' : (byte | 32) - 'a' + 10);
    }
    return 1;
}

static void read_all(struct client *c) {
    static char data[READ_BYTES];
    for (int fd = c->fd; c->fd == fd && fd >= 0;) {
        ssize_t got = read(fd, data, sizeof data);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) return lose(c);
        const char *at = data;
        size_t size = (size_t)got;
        while (size > 0) {
            if (c->state == IDLE) return lose(c);
            if (!take(c, &at, &size)) { end_answer(c); break; }
        }
        if ((size_t)got < sizeof data && c->state == IDLE) return;
    }
}

// What the machine did while we measured.
struct use {
    uint64_t at_ns;
    double process_s, busy_s, steal_s;
};

static struct use use_of(const char *pids, int core) {
    struct use use = {now_ns(), 0, 0, 0};
    double tick = 1.0 / (double)sysconf(_SC_CLK_TCK);
    char line[1024], path[64], name[16];
    for (const char *at = pids; *at >= '0' && *at <= '9'; at += strcspn(at, ","), at += *at == ',') {
        snprintf(path, sizeof path, "/proc/%ld/stat", atol(at));
        FILE *file = fopen(path, "r");
        unsigned long user = 0, system = 0;
        if (file != NULL && fgets(line, sizeof line, file) != NULL)
            sscanf(strrchr(line, ')') + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
        if (file != NULL) fclose(file);
        use.process_s += (double)(user + system) * tick;
    }
    snprintf(name, sizeof name, "cpu%d ", core);
    FILE *file = fopen("/proc/stat", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        unsigned long v[8] = {0};
        if (strncmp(line, name, strlen(name)) != 0) continue;
        sscanf(strchr(line, ' '), "%lu %lu %lu %lu %lu %lu %lu %lu", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6, v + 7);
        use.busy_s = (double)(v[0] + v[1] + v[2] + v[5] + v[6]) * tick;
        use.steal_s = (double)v[7] * tick;
    }
    if (file != NULL) fclose(file);
    return use;
}

static void report(struct use from, struct use to) {
    double seconds = (double)(to.at_ns - from.at_ns) / 1e9;
    printf("{\"seconds\":%.6f,\"answers\":%lu,\"failed\":%lu,\"refused\":%lu,\"events\":%lu,\"frames\":%lu,"
           "\"bytes\":%lu,\"left_over\":%lu,",
           seconds, answers, failed, refused, events, frames, body_bytes, backlog_end - backlog_first);
    printf("\"cpu_s\":%.3f,\"core_busy_s\":%.3f,\"core_steal_s\":%.3f,", to.process_s - from.process_s,
           to.busy_s - from.busy_s, to.steal_s - from.steal_s);
    const struct times *each[] = {&whole, &first};
    const char *names[] = {"whole", "first"};
    for (int at = 0; at < 2; at++)
        printf("\"%s_ms\":{\"p50\":%.4f,\"p90\":%.4f,\"p99\":%.4f,\"max\":%.4f,\"mean\":%.4f},", names[at],
               quantile_ms(each[at], 0.5), quantile_ms(each[at], 0.9), quantile_ms(each[at], 0.99),
               quantile_ms(each[at], 1), each[at]->count ? each[at]->sum_ns / (double)each[at]->count / 1e6 : -1);
    printf("\"complaint\":\"%s\"}\n", complaint);
}

static uint64_t gap_ns(void) {
    double share = is_poisson ? -log(1 - drand48()) : 1;
    return (uint64_t)(share * 1e9 / rate);
}

static void arrive(uint64_t due_ns) {
    if (idle_count > 0) return ask(&all[idle[--idle_count]], due_ns);
    if (backlog_end - backlog_first == BACKLOG) die("more than %d requests wait: the rate is too high", BACKLOG);
    backlog[backlog_end++ % BACKLOG] = due_ns;
}

int main(int count, char **words) {
    if (count != 12) die("usage: load TARGET PATH KEY BODY_FILE CLIENTS WARM_S SECONDS RATE ARRIVALS CORE PIDS");
    prepare_process();
    target = words[1];
    request = make_request(words[2], words[3], words[4], &request_size);
    counter_at = memmem(request, request_size, "#00000000", 9);
    if (counter_at != NULL) counter_at++;
    clients = atoi(words[5]);
    uint64_t started_ns = now_ns(), warm_ns = started_ns + (uint64_t)(atof(words[6]) * 1e9);
    uint64_t length_ns = (uint64_t)(atof(words[7]) * 1e9), end_ns = warm_ns + length_ns;
    rate = atof(words[8]);
    is_poisson = strcmp(words[9], "poisson") == 0;
    int core = atoi(words[10]);
    struct use from = {0};
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event on_time = {.events = EPOLLIN, .data.ptr = NULL}, ready[256];
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, timer, &on_time);
    all = sized(NULL, sizeof *all * (size_t)clients);
    idle = sized(NULL, sizeof *idle * (size_t)clients);
    backlog = sized(NULL, sizeof *backlog * BACKLOG);
    memset(all, 0, sizeof *all * (size_t)clients);
    for (int at = 0; at < clients; at++) {
        all[at].fd = -1;
        connect_again(&all[at]);
        rest(&all[at]);
    }
    for (uint64_t next_ns = now_ns(), now; (now = now_ns()) < end_ns || !is_measuring;) {
        if (!is_measuring && now >= warm_ns) {
            is_measuring = 1;
            from = use_of(words[11], core);
            end_ns = from.at_ns + length_ns;
        }
        for (; rate > 0 && next_ns <= now; next_ns += gap_ns()) arrive(next_ns);
        uint64_t wake_ns = is_measuring ? end_ns : warm_ns;
        if (rate > 0 && next_ns < wake_ns) wake_ns = next_ns;
        struct itimerspec at_time = {.it_value = {(time_t)(wake_ns / SECOND_NS), (long)(wake_ns % SECOND_NS)}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &at_time, NULL);
        int found = epoll_wait(poll_fd, ready, 256, -1);
        for (int at = 0; at < found; at++) {
            struct client *c = ready[at].data.ptr;
            if (c == NULL) continue;
            if (c->fd >= 0 && c->state != IDLE && c->sent < request_size) send_more(c);
            if (c->fd >= 0 && ready[at].events & ~(uint32_t)EPOLLOUT) read_all(c);
        }
    }
    report(from, use_of(words[11], core));
}
