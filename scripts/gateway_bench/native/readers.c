// Readers that take their time: many streams that are open at once, each read a little now and then.
//
//   readers TARGET PATH KEY BODY_FILE READERS A_SECOND SECONDS READ_BYTES EVERY_MS
//
// A_SECOND: how many are opened in a second. Each reads at most READ_BYTES (0: what is there) every EVERY_MS,
// and lets the system hold 4 KiB for it. Prints "open N" when all are open, and at the end a line of JSON.
#include "common.h"

struct reader {
    int fd;
    char last;
};

static struct reader *all;
static char *request;
static size_t request_size;
static long opened, lost, refused, events, bytes, read_bytes;
static char complaint[200];

static void open_one(const char *target, struct reader *r) {
    r->fd = dial(target, read_bytes ? 4096 : 0);
    if (r->fd < 0) {
        lost++;
        return;
    }
    if (write(r->fd, request, request_size) != (ssize_t)request_size) die("a request of more than a buffer");
    opened++;
}

static void close_one(struct reader *r) {
    close(r->fd);
    r->fd = -1;
    lost++;
}

static void read_one(struct reader *r) {
    static char data[65536];
    if (r->fd < 0) return;
    ssize_t got = read(r->fd, data, read_bytes ? (size_t)read_bytes : sizeof data);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return close_one(r);
    if (r->last == 0 && got > 12 && strncmp(data + 9, "200", 3) != 0) {
        refused++;
        for (int at = 0; at < got && at < (int)sizeof complaint - 1 && complaint[at] == 0; at++)
            complaint[at] = data[at] < ' ' || data[at] == '"' || data[at] == '\\' ? ' ' : data[at];
    }
    bytes += got;
    for (ssize_t at = 0; at < got; at++) {
        events += r->last == '\n' && data[at] == '\n';
        r->last = data[at];
    }
}

int main(int count, char **words) {
    if (count != 10) die("usage: readers TARGET PATH KEY BODY_FILE READERS A_SECOND SECONDS READ_BYTES EVERY_MS");
    prepare_process();
    request = make_request(words[2], words[3], words[4], &request_size);
    long readers = atol(words[5]), a_second = atol(words[6]), next = 0, begun = 0;
    read_bytes = atol(words[8]);
    uint64_t every_ns = strtoull(words[9], NULL, 10) * 1000000, started_ns = now_ns();
    uint64_t length_ns = (uint64_t)(atof(words[7]) * 1e9), end_ns = 0;
    all = sized(NULL, sizeof *all * (size_t)readers);
    for (long at = 0; at < readers; at++) all[at] = (struct reader){-1, 0};
    for (uint64_t read_done = 0;;) {
        uint64_t now = now_ns(), since = now - started_ns;
        if (end_ns && now >= end_ns) break;
        for (; begun < readers && (uint64_t)begun * SECOND_NS / (uint64_t)a_second <= since; begun++)
            open_one(words[1], &all[begun]);
        if (begun == readers && !end_ns) {
            end_ns = now + length_ns;
            printf("open %ld\n", opened - lost);
            fflush(stdout);
        }
        uint64_t due = (uint64_t)((double)since / (double)every_ns * (double)readers);
        for (; read_done < due; read_done++, next = (next + 1) % readers) read_one(&all[next]);
        usleep(5000);
    }
    long begun_answers = 0;
    for (long at = 0; at < readers; at++) begun_answers += all[at].fd >= 0 && all[at].last != 0;
    printf("{\"opened\":%ld,\"held\":%ld,\"lost\":%ld,\"refused\":%ld,\"events\":%ld,\"bytes\":%ld,\"complaint\":\"%s\"}\n",
           opened, begun_answers, lost, refused, events, bytes, complaint);
}
