// An engine that costs next to nothing: one thread, epoll, HTTP/1.1 with keep-alive, OpenAI's shapes.
//
//   upstream UNIX_SOCKET TCP_PORT        prints "ready PORT" when it listens on both (0: any port)
//
// What it answers stands in the prompt, where no gateway changes it:
//   bench:n=100,k=1,us=0,s=1;   100 events of 185 bytes, k of them in each write, a write each `us`
//                               microseconds (0: as fast as they are taken), s=1: as a stream.
// All streams of one pace are written to at the same moments, as an engine's steps do.
#include "common.h"

#define MOST_IN_A_WRITE 64
#define TURN 64  // events of epoll that are taken at once

enum { READING, UNARY, HEAD, EVENTS, TAIL };

struct connection {
    int fd, phase, is_blocked, is_free_running;
    char *input;
    size_t used, room;
    const char *piece;  // what is being written
    size_t piece_size, piece_done;
    long events_left, per_write;
    uint64_t pace_ns, due_ns;
    int wants_usage;
    size_t place;  // in `free_running` or in the heap
    struct connection *next_dead;
};

static int poll_fd;
static uint64_t requests, events_sent, writes;
static struct connection *dead;

// Answers are made once.
static char unary_answer[2048], stream_frames[MOST_IN_A_WRITE * 256], tails[2][2048];
static size_t unary_size, frame_size, tail_sizes[2];
static const char stream_head[] =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    "transfer-encoding: chunked\r\n\r\n";

static size_t frame(char *room, const char *event) {
    return (size_t)sprintf(room, "%zx\r\n%s\r\n", strlen(event), event);
}

static size_t answer(char *room, const char *type, const char *body) {
    return (size_t)sprintf(room, "HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %zu\r\n\r\n%s",
                           type, strlen(body), body);
}

#define CHUNK \
    "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1700000000," \
    "\"model\":\"bench\",\"choices\":["
#define USAGE "\"usage\":{\"prompt_tokens\":256,\"completion_tokens\":100,\"total_tokens\":356," \
    "\"prompt_tokens_details\":{\"cached_tokens\":128}}}"

static void make_answers(void) {
    unary_size = answer(
        unary_answer, "application/json",
        "{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion\",\"created\":1700000000,"
        "\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
        "\"The quick brown fox jumps over the lazy dog, and then it rests.\",\"tool_calls\":[]},"
        "\"logprobs\":null,\"finish_reason\":\"stop\"}]," USAGE);
    const char *event = CHUNK "{\"index\":0,\"delta\":{\"content\":\" token\"},\"logprobs\":null,"
                              "\"finish_reason\":null}]}\n\n";
    for (int number = 0; number < MOST_IN_A_WRITE; number++)
        frame_size = frame(stream_frames + (size_t)number * frame_size, event);
    for (int with_usage = 0; with_usage < 2; with_usage++) {
        char *end = tails[with_usage];
        end += frame(end, CHUNK "{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"stop\"}]}\n\n");
        if (with_usage) end += frame(end, CHUNK "]," USAGE "\n\n");
        end += frame(end, "data: [DONE]\n\n");
        end += sprintf(end, "0\r\n\r\n");
        tail_sizes[with_usage] = (size_t)(end - tails[with_usage]);
    }
}

// Streams without a pace, in turn; streams with one, in a heap by when they are due.
struct pile {
    struct connection **all;
    size_t count, room;
};
static struct pile free_running, paced;

static void put(struct pile *pile, struct connection *c, size_t at) {
    pile->all[at] = c;
    c->place = at;
}

static void add(struct pile *pile, struct connection *c) {
    if (pile->count == pile->room) {
        pile->room = pile->room ? 2 * pile->room : 1024;
        pile->all = sized(pile->all, pile->room * sizeof *pile->all);
    }
    put(pile, c, pile->count++);
}

static void sift(size_t at) {
    struct connection **heap = paced.all, *c = heap[at];
    for (; at > 0 && heap[(at - 1) / 2]->due_ns > c->due_ns; at = (at - 1) / 2)
        put(&paced, heap[(at - 1) / 2], at);
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < paced.count && heap[child + 1]->due_ns < heap[child]->due_ns) child++;
        if (child >= paced.count || heap[child]->due_ns >= c->due_ns) break;
        put(&paced, heap[child], at);
        at = child;
    }
    put(&paced, c, at);
}

static void schedule(struct connection *c) {
    if (c->pace_ns == 0) {
        if (c->is_blocked) return;  // comes back when it can be written to
        c->is_free_running = 1;
        add(&free_running, c);
    } else {
        c->due_ns = (now_ns() / c->pace_ns + 1) * c->pace_ns;
        add(&paced, c);
        sift(paced.count - 1);
    }
}

static void unschedule(struct connection *c) {
    struct pile *pile = c->is_free_running ? &free_running : &paced;
    if (c->place == SIZE_MAX) return;
    struct connection *last = pile->all[--pile->count];
    if (last != c) {
        put(pile, last, c->place);
        if (pile == &paced) sift(last->place);
    }
    c->place = SIZE_MAX;
    c->is_free_running = 0;
}

static void drop(struct connection *c) {
    if (c->fd < 0) return;
    unschedule(c);
    close(c->fd);
    c->fd = -1;
    c->next_dead = dead;  // events of this turn may still name it
    dead = c;
}

static void step(struct connection *c);

static void write_piece(struct connection *c) {
    ssize_t sent = write(c->fd, c->piece + c->piece_done, c->piece_size - c->piece_done);
    if (sent < 0) {
        if (errno == EAGAIN) c->is_blocked = 1;
        else drop(c);
        return;
    }
    writes++;
    c->piece_done += (size_t)sent;
    c->is_blocked = c->piece_done < c->piece_size;
}

static void begin_piece(struct connection *c, int phase, const char *piece, size_t size) {
    c->phase = phase;
    c->piece = piece;
    c->piece_size = size;
    c->piece_done = 0;
    write_piece(c);
}

static void next_events(struct connection *c) {
    if (c->events_left == 0) {
        unschedule(c);
        begin_piece(c, TAIL, tails[c->wants_usage], tail_sizes[c->wants_usage]);
        if (c->fd >= 0 && !c->is_blocked) step(c);
        return;
    }
    long count = c->events_left < c->per_write ? c->events_left : c->per_write;
    c->events_left -= count;
    events_sent += (uint64_t)count;
    begin_piece(c, EVENTS, stream_frames, (size_t)count * frame_size);
    if (c->is_blocked && c->is_free_running) unschedule(c);
}

// A request is whole: answer it. `head` ends with a zero.
static void begin_answer(struct connection *c, const char *head, const char *body, size_t size) {
    static char small[4096];
    requests++;
    if (strncmp(head, "GET ", 4) == 0) {
        char said[512] = "{}";
        const char *type = "application/json";
        if (strncmp(head + 4, "/v1/models", 10) == 0)
            strcpy(said, "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\","
                         "\"created\":1700000000,\"owned_by\":\"bench\",\"max_model_len\":1048576}]}");
        else if (strncmp(head + 4, "/metrics", 8) == 0)
            strcpy(said, "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0\n"), type = "text/plain";
        else if (strncmp(head + 4, "/bench/counts", 13) == 0)
            sprintf(said, "{\"requests\":%lu,\"events\":%lu,\"writes\":%lu}", requests, events_sent, writes);
        return begin_piece(c, UNARY, small, answer(small, type, said));
    }
    const char *order = memmem(body, size, "bench:n=", 8);
    long count = 0, per_write = 1, pace_us = 0, is_stream = 0;
    if (order != NULL) sscanf(order, "bench:n=%ld,k=%ld,us=%ld,s=%ld", &count, &per_write, &pace_us, &is_stream);
    if (!is_stream) return begin_piece(c, UNARY, unary_answer, unary_size);
    c->events_left = count;
    c->per_write = per_write < 1 ? 1 : per_write > MOST_IN_A_WRITE ? MOST_IN_A_WRITE : per_write;
    c->pace_ns = (uint64_t)pace_us * 1000;
    const char *usage = memmem(body, size, "\"include_usage\"", 15);
    const char *after = usage ? usage + 15 : "";
    while (*after == ':' || *after == ' ') after++;
    c->wants_usage = strncmp(after, "true", 4) == 0;
    begin_piece(c, HEAD, stream_head, sizeof stream_head - 1);
    if (c->fd >= 0) schedule(c);
}

// Take a request out of what was read, if it is whole.
static int take_request(struct connection *c) {
    char *end = memmem(c->input, c->used, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    size_t head_size = (size_t)(end - c->input) + 4, body_size = 0;
    end[2] = 0;
    char *length = strcasestr(c->input, "\r\ncontent-length:");
    if (length != NULL) body_size = strtoul(length + 17, NULL, 10);
    else if (strcasestr(c->input, "\r\ntransfer-encoding:") != NULL) return drop(c), 0;
    size_t whole = head_size + body_size;
    end[2] = '\r';
    if (c->room < whole + 1) c->input = sized(c->input, c->room = whole + 1);
    if (c->used < whole) return 0;
    c->input[head_size - 1] = 0;
    begin_answer(c, c->input, c->input + head_size, body_size);
    c->used -= whole;
    memmove(c->input, c->input + whole, c->used);
    return 1;
}

static void read_more(struct connection *c) {
    while (c->fd >= 0) {
        if (c->phase == READING && c->used && take_request(c)) return step(c);
        if (c->room - c->used < 2048) c->input = sized(c->input, c->room = 2 * c->room + 4096);
        ssize_t got = read(c->fd, c->input + c->used, c->room - c->used - 1);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) return drop(c);
        c->used += (size_t)got;
        c->input[c->used] = 0;
    }
}

// After a piece is out: what comes without waiting.
static void step(struct connection *c) {
    if (c->fd < 0 || c->is_blocked) return;
    if (c->phase == UNARY || c->phase == TAIL) {
        c->phase = READING;
        read_more(c);
    }
}

static void on_writable(struct connection *c) {
    if (!c->is_blocked) return;
    write_piece(c);
    step(c);
    if (c->fd >= 0 && (c->phase == HEAD || c->phase == EVENTS) && c->place == SIZE_MAX) schedule(c);
}

static void run_due(void) {
    for (size_t at = 0; at < free_running.count; at++) next_events(free_running.all[at]);
    uint64_t now = now_ns();
    while (paced.count && paced.all[0]->due_ns <= now) {
        struct connection *c = paced.all[0];
        if (!c->is_blocked) next_events(c);  // may end it, and take it out
        if (c->phase != EVENTS || c->place != 0) continue;
        c->due_ns += c->pace_ns;
        sift(0);
    }
}

static int listen_at(const char *address_text, int *port) {
    struct sockaddr_storage address;
    socklen_t length = address_of(address_text, &address);
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, length) || listen(fd, 4096))
        die("cannot listen at %s: %s", address_text, strerror(errno));
    getsockname(fd, (struct sockaddr *)&address, &length);
    if (port != NULL) *port = ntohs(((struct sockaddr_in *)&address)->sin_port);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)fd << 1 | 1};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
    return fd;
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        struct connection *c = sized(NULL, sizeof *c);
        memset(c, 0, sizeof *c);
        c->fd = fd;
        c->place = SIZE_MAX;
        no_delay(fd);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, .data.ptr = c};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int count, char **words) {
    if (count != 3) die("usage: upstream UNIX_SOCKET TCP_PORT");
    prepare_process();
    make_answers();
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), port = 0;
    struct epoll_event on_time = {.events = EPOLLIN, .data.u64 = (uint64_t)timer << 1 | 1}, events[TURN];
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, timer, &on_time);
    char address[256];
    snprintf(address, sizeof address, "unix:%s", words[1]);
    listen_at(address, NULL);
    snprintf(address, sizeof address, "127.0.0.1:%s", words[2]);
    listen_at(address, &port);
    printf("ready %d\n", port);
    fflush(stdout);
    for (uint64_t armed_ns = 0;;) {
        if (paced.count && paced.all[0]->due_ns != armed_ns) {
            armed_ns = paced.all[0]->due_ns;
            struct itimerspec at = {.it_value = {(time_t)(armed_ns / SECOND_NS), (long)(armed_ns % SECOND_NS)}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        }
        int ready = epoll_wait(poll_fd, events, TURN, free_running.count ? 0 : -1);
        for (int at = 0; at < ready; at++) {
            if (events[at].data.u64 & 1) {
                int fd = (int)(events[at].data.u64 >> 1);
                uint64_t ticks;
                if (fd != timer) accept_all(fd);
                else if (read(fd, &ticks, sizeof ticks) > 0) armed_ns = 0;
                continue;
            }
            struct connection *c = events[at].data.ptr;
            if (c->fd >= 0 && events[at].events & EPOLLOUT) on_writable(c);
            if (c->fd >= 0 && events[at].events & ~(uint32_t)EPOLLOUT) read_more(c);
        }
        run_due();
        for (struct connection *c; (c = dead) != NULL;) {
            dead = c->next_dead;
            free(c->input);
            free(c);
        }
    }
}
