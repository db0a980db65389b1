/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The services of the test guest.
 *
 *   guestd serve               start the services; returns once they listen
 *   guestd content SEED SIZE   write what /stream/SIZE/SEED serves to stdout;
 *                              run on the host, this tells what must arrive
 *
 * TCP port 80, HTTP/1.1 with persistent connections:
 *   GET /                      a word of welcome
 *   GET /stream/SIZE[/SEED]    SIZE bytes that differ everywhere
 *   PUT or POST /upload        answers with the SHA-256 of the body, in hex
 *   GET /random/SIZE           SIZE random bytes and then their FNV-1a (64 bits)
 *                              in hex, which shows whether they are of one guest
 *   GET /date                  the word of welcome, with a Date: as servers send
 *   GET /clock                 the time in nanoseconds
 *   PUT /disk/NUMBER           keeps the body in /disk/NUMBER; once there is an
 *                              answer, its SHA-256, it is on the disk
 *   GET /disk/NUMBER           that file
 *   GET /relay/PORT/SIZE       SIZE bytes which the guest gets from there, with a
 *                              connection of its own to that port of who asks
 *   GET /ask/PORT              the word of welcome, once a datagram from there has
 *                              said what one from here, from any port, has asked
 *   GET /lock, GET /unlock     the word of welcome, once no other connection has
 *                              the lock that this one has then; it is given back
 * UDP port 7: echo.
 *
 * Two copies of the guest must give the same answers whenever they are asked:
 * no dates, no counters, nothing random.  The exceptions are there to make the
 * copies diverge: /clock each time, who gets the lock often, /random and /date
 * now and then (a checkpoint makes the kernels' random numbers the same, until
 * they are seeded anew).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum {
    HTTP_PORT = 80,
    ECHO_PORT = 7,
    CHUNK = 64 * 1024,
    REQUEST_MAX = 4096,
    HEADER_MAX = 160,
    RANDOM_MAX = 1000000,
    HASH_DIGITS = 16,
    ASKED_MAX = 5,
};

static void die(const char *what)
{
    fprintf(stderr, "guestd: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

/*
 * Content.  Word i of a stream is a mix of the seed and of i, so that any
 * part can be made without the parts before it, and no two parts are alike.
 */
static uint64_t content_word(uint64_t seed, uint64_t index)
{
    uint64_t z = (index + 1) * 0x9e3779b97f4a7c15u + seed;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    return z ^ (z >> 27);
}

/* Fills @buf with the stream's bytes from @offset, which is a multiple of 8. */
static void content_fill(void *buf, size_t size, uint64_t seed, uint64_t offset)
{
    uint64_t word;
    size_t at;

    for (at = 0; at < size; at += sizeof(word)) {
        word = content_word(seed, (offset + at) / sizeof(word));
        memcpy((char *)buf + at, &word,
               size - at < sizeof(word) ? size - at : sizeof(word));
    }
}

static bool write_all(int fd, const void *buf, size_t size)
{
    const char *from = buf;

    while (size > 0) {
        ssize_t n = write(fd, from, size);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        from += n;
        size -= n;
    }
    return true;
}

static bool content_write(int fd, uint64_t seed, uint64_t size)
{
    static char chunk[CHUNK];
    uint64_t offset;

    for (offset = 0; offset < size; offset += CHUNK) {
        size_t n = size - offset < CHUNK ? size - offset : CHUNK;

        content_fill(chunk, n, seed, offset);
        if (!write_all(fd, chunk, n)) {
            return false;
        }
    }
    return true;
}

/* SHA-256 (FIPS 180-4). */
typedef struct Sha256 {
    uint32_t state[8];
    uint64_t length;
    uint8_t block[64];
} Sha256;

static const uint32_t sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1,
    0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
    0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
    0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, int by)
{
    return x >> by | x << (32 - by);
}

static void sha256_block(Sha256 *sha)
{
    uint32_t w[64], s[8];
    int i;

    for (i = 0; i < 16; i++) {
        uint32_t word;

        memcpy(&word, sha->block + 4 * i, sizeof(word));
        w[i] = ntohl(word);
    }
    for (; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];

        w[i] = w[i - 16] + w[i - 7] +
               (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) +
               (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    memcpy(s, sha->state, sizeof(s));
    for (i = 0; i < 64; i++) {
        uint32_t one = s[7] + sha256_k[i] + w[i] + ((s[4] & s[5]) ^ (~s[4] & s[6])) +
                       (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25));
        uint32_t two = ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2])) +
                       (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22));

        memmove(s + 1, s, 7 * sizeof(s[0]));
        s[4] += one;
        s[0] = one + two;
    }
    for (i = 0; i < 8; i++) {
        sha->state[i] += s[i];
    }
}

static void sha256_init(Sha256 *sha)
{
    *sha = (Sha256) { .state = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    } };
}

static void sha256_add(Sha256 *sha, const void *data, size_t size)
{
    const uint8_t *from = data;

    while (size > 0) {
        size_t fill = sha->length % sizeof(sha->block);
        size_t n = sizeof(sha->block) - fill;

        n = n < size ? n : size;
        memcpy(sha->block + fill, from, n);
        from += n;
        size -= n;
        sha->length += n;
        if (sha->length % sizeof(sha->block) == 0) {
            sha256_block(sha);
        }
    }
}

static void sha256_hex(Sha256 *sha, char hex[65])
{
    uint64_t bits = sha->length * 8;
    uint8_t tail[8];
    int i;

    for (i = 0; i < 8; i++) {
        tail[i] = bits >> (56 - 8 * i);
    }
    sha256_add(sha, "\x80", 1);
    while (sha->length % sizeof(sha->block) != 56) {
        sha256_add(sha, "", 1);
    }
    sha256_add(sha, tail, sizeof(tail));
    for (i = 0; i < 8; i++) {
        snprintf(hex + 8 * i, 9, "%08x", sha->state[i]);
    }
}

/* Random bytes. */
static void random_fill(char *buf, size_t size)
{
    size_t at = 0;

    while (at < size) {
        ssize_t n = getrandom(buf + at, size - at, 0);

        if (n > 0) {
            at += n;
        } else if (errno != EINTR) {
            die("getrandom");
        }
    }
}

static uint64_t fnv1a(const char *buf, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325u;
    size_t i;

    for (i = 0; i < size; i++) {
        hash = (hash ^ (uint8_t)buf[i]) * 0x100000001b3u;
    }
    return hash;
}

/* HTTP. */
typedef struct Connection {
    int fd;
    int lock;                   /* /lock, opened by itself; 0: not yet */
    size_t fill;                /* bytes in buf */
    char buf[REQUEST_MAX + 1];
} Connection;

static int write_header(char header[HEADER_MAX], uint64_t length)
{
    return snprintf(header, HEADER_MAX,
                    "HTTP/1.1 200 OK\r\nContent-Length: %llu\r\n"
                    "Content-Type: application/octet-stream\r\n\r\n",
                    (unsigned long long)length);
}

static bool answer_stream(Connection *conn, uint64_t seed, uint64_t size)
{
    char header[HEADER_MAX];

    return write_all(conn->fd, header, write_header(header, size)) &&
           content_write(conn->fd, seed, size);
}

/* In one piece: a small rest would wait for the client's acknowledgement. */
static bool answer_random(Connection *conn, size_t size)
{
    static char all[HEADER_MAX + RANDOM_MAX + HASH_DIGITS + 1];
    char *body = all + write_header(all, size + HASH_DIGITS);

    random_fill(body, size);
    snprintf(body + size, HASH_DIGITS + 1, "%016llx",
             (unsigned long long)fnv1a(body, size));
    return write_all(conn->fd, all, body + size + HASH_DIGITS - all);
}

/* With @fields, whole lines, in the header. */
static bool answer_with(Connection *conn, const char *status,
                        const char *fields, const char *text)
{
    char all[512];
    int n = snprintf(all, sizeof(all),
                     "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n"
                     "Content-Type: text/plain\r\n\r\n%s",
                     status, fields, strlen(text), text);

    return write_all(conn->fd, all, n);
}

static bool answer_text(Connection *conn, const char *status, const char *text)
{
    return answer_with(conn, status, "", text);
}

/* The date as in RFC 9110, 5.6.7. */
static bool answer_date(Connection *conn)
{
    char field[64];
    time_t now = time(NULL);

    strftime(field, sizeof(field), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n",
             gmtime(&now));
    return answer_with(conn, "200 OK", field, "ready\n");
}

static bool answer_clock(Connection *conn)
{
    char text[32];
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(text, sizeof(text), "%lld%09ld\n", (long long)now.tv_sec,
             now.tv_nsec);
    return answer_text(conn, "200 OK", text);
}

/* Reads until the blank line; returns the header's length, 0 at the end. */
static size_t read_header(Connection *conn)
{
    for (;;) {
        char *end;
        ssize_t n;

        conn->buf[conn->fill] = '\0';
        end = strstr(conn->buf, "\r\n\r\n");
        if (end) {
            return end + 4 - conn->buf;
        }
        if (conn->fill == REQUEST_MAX) {
            return 0;
        }
        n = read(conn->fd, conn->buf + conn->fill, REQUEST_MAX - conn->fill);
        if (n <= 0) {
            return 0;
        }
        conn->fill += n;
    }
}

static void consume(Connection *conn, size_t size)
{
    conn->fill -= size;
    memmove(conn->buf, conn->buf + size, conn->fill);
}

/*
 * Reads a body of @length bytes and writes it to @file, unless that is -1.
 * Returns false if it has not come whole or cannot be written.
 */
static bool receive_body(Connection *conn, uint64_t length, int file, char hex[65])
{
    static char chunk[CHUNK];
    const char *from = conn->buf;
    size_t n = length < conn->fill ? length : conn->fill;
    Sha256 sha;

    sha256_init(&sha);
    for (;;) {
        sha256_add(&sha, from, n);
        if (file >= 0 && !write_all(file, from, n)) {
            return false;
        }
        if (from == conn->buf) {
            consume(conn, n);
        }
        length -= n;
        if (length == 0) {
            break;
        }
        ssize_t got = read(conn->fd, chunk, length < CHUNK ? length : CHUNK);
        if (got <= 0) {
            return false;
        }
        from = chunk;
        n = got;
    }
    sha256_hex(&sha, hex);
    return true;
}

static bool receive_upload(Connection *conn, uint64_t length)
{
    char hex[65];

    return receive_body(conn, length, -1, hex) &&
           answer_text(conn, "200 OK", hex);
}

/* Under its name there is the whole file, or what was there before. */
static bool receive_file(Connection *conn, uint64_t length, unsigned long long number)
{
    char name[64], fresh[80], hex[65];
    int directory = open("/disk", O_RDONLY | O_DIRECTORY);
    int file;
    bool kept;

    snprintf(name, sizeof(name), "/disk/%llu", number);
    snprintf(fresh, sizeof(fresh), "%s.%d", name, getpid());
    file = open(fresh, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    kept = file >= 0 && receive_body(conn, length, file, hex) &&
           fsync(file) == 0 && rename(fresh, name) == 0 && fsync(directory) == 0;
    close(file);
    close(directory);
    if (!kept) {
        answer_text(conn, "500 Internal Server Error", "not kept\n");
        return false;
    }
    return answer_text(conn, "200 OK", hex);
}

static bool answer_file(Connection *conn, unsigned long long number)
{
    static char chunk[CHUNK];
    char name[64], header[HEADER_MAX];
    struct stat about;
    ssize_t n = 0;
    int file;
    bool sent;

    snprintf(name, sizeof(name), "/disk/%llu", number);
    file = open(name, O_RDONLY);
    if (file < 0 || fstat(file, &about) < 0) {
        return answer_text(conn, "404 Not Found", "not here\n");
    }
    sent = write_all(conn->fd, header, write_header(header, about.st_size));
    while (sent && (n = read(file, chunk, CHUNK)) > 0) {
        sent = write_all(conn->fd, chunk, n);
    }
    close(file);
    return sent && n == 0;
}

/* A socket that is connected to @port of the other end of @conn; -1: none. */
static int call_back(const Connection *conn, int type, unsigned port)
{
    struct sockaddr_in6 peer;
    socklen_t len = sizeof(peer);
    int fd = socket(AF_INET6, type, 0);

    if (getpeername(conn->fd, (struct sockaddr *)&peer, &len) < 0) {
        die("getpeername");
    }
    peer.sin6_port = htons(port);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&peer, len) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool relay(Connection *conn, unsigned port, uint64_t size)
{
    static char chunk[CHUNK];
    char header[HEADER_MAX];
    int from = call_back(conn, SOCK_STREAM, port);
    bool sent;

    if (from < 0 || dprintf(from, "%llu\n", (unsigned long long)size) < 0) {
        close(from);
        return answer_text(conn, "502 Bad Gateway", "nobody is there\n");
    }
    sent = write_all(conn->fd, header, write_header(header, size));
    while (sent && size) {
        ssize_t n = read(from, chunk, size < CHUNK ? size : CHUNK);

        sent = n > 0 && write_all(conn->fd, chunk, n);
        size -= sent ? n : 0;
    }
    close(from);
    return sent;
}

static bool ask(Connection *conn, unsigned port)
{
    struct timeval patience = { .tv_sec = 1 };
    char question[16], answer[sizeof(question)];
    int fd = call_back(conn, SOCK_DGRAM, port);
    bool answered = false;

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (getrandom(question, sizeof(question), 0) != sizeof(question)) {
        die("getrandom");
    }
    for (int i = 0; i < ASKED_MAX && !answered; i++) {
        send(fd, question, sizeof(question), 0);
        answered = recv(fd, answer, sizeof(answer), 0) == sizeof(answer) &&
                   memcmp(answer, question, sizeof(answer)) == 0;
    }
    close(fd);
    return answered ? answer_text(conn, "200 OK", "ready\n")
                    : answer_text(conn, "504 Gateway Timeout", "no answer\n");
}

/* Who looks first gets it: each looks after some milliseconds, by a clock that is another in each copy. */
static bool lock(Connection *conn)
{
    struct timespec now;

    if (!conn->lock) {
        conn->lock = open("/lock", O_RDWR | O_CREAT, 0600);
    }
    if (conn->lock < 0) {
        die("/lock");
    }
    do {
        clock_gettime(CLOCK_REALTIME, &now);
        usleep(now.tv_nsec / 64 % 8 * 1000);
    } while (flock(conn->lock, LOCK_EX | LOCK_NB) < 0);
    return answer_text(conn, "200 OK", "ready\n");
}

static bool unlock(Connection *conn)
{
    flock(conn->lock, LOCK_UN);
    return answer_text(conn, "200 OK", "ready\n");
}

static uint64_t content_length(const char *header)
{
    const char *line;

    for (line = strstr(header, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, "Content-Length:", 15) == 0) {
            return strtoull(line + 17, NULL, 10);
        }
    }
    return 0;
}

static void serve_connection(int fd)
{
    static Connection conn;
    size_t header;
    bool alive = true;

    conn.fd = fd;
    while (alive && (header = read_header(&conn)) > 0) {
        unsigned long long size, number, seed = 0;
        unsigned port;
        char method[8], path[200];
        uint64_t length;
        bool last;

        conn.buf[header - 1] = '\0';
        last = strcasestr(conn.buf, "\r\nConnection: close\r\n") != NULL;
        length = content_length(conn.buf);
        if (sscanf(conn.buf, "%7s %199s", method, path) != 2) {
            answer_text(&conn, "400 Bad Request", "cannot read this\n");
            return;
        }
        consume(&conn, header);

        if (strcmp(path, "/upload") == 0 && strcmp(method, "GET") != 0) {
            alive = receive_upload(&conn, length);
        } else if (sscanf(path, "/stream/%llu/%llu", &size, &seed) >= 1) {
            alive = answer_stream(&conn, seed, size);
        } else if (sscanf(path, "/random/%llu", &size) == 1 &&
                   size <= RANDOM_MAX) {
            alive = answer_random(&conn, size);
        } else if (sscanf(path, "/disk/%llu", &number) == 1) {
            alive = strcmp(method, "GET") == 0 ? answer_file(&conn, number)
                                               : receive_file(&conn, length, number);
        } else if (sscanf(path, "/relay/%u/%llu", &port, &size) == 2) {
            alive = relay(&conn, port, size);
        } else if (sscanf(path, "/ask/%u", &port) == 1) {
            alive = ask(&conn, port);
        } else if (strcmp(path, "/lock") == 0) {
            alive = lock(&conn);
        } else if (strcmp(path, "/unlock") == 0) {
            alive = unlock(&conn);
        } else if (strcmp(path, "/date") == 0) {
            alive = answer_date(&conn);
        } else if (strcmp(path, "/clock") == 0) {
            alive = answer_clock(&conn);
        } else if (strcmp(path, "/") == 0) {
            alive = answer_text(&conn, "200 OK", "ready\n");
        } else {
            alive = answer_text(&conn, "404 Not Found", "not here\n");
        }
        alive = alive && !last;
    }
}

static int open_socket(int type, int port)
{
    struct sockaddr_in6 any = {
        .sin6_family = AF_INET6,
        .sin6_addr = IN6ADDR_ANY_INIT,
        .sin6_port = htons(port),
    };
    int on = 1, off = 0;
    int fd = socket(AF_INET6, type, 0);

    if (fd < 0) {
        die("socket");
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, (struct sockaddr *)&any, sizeof(any)) < 0) {
        die("bind");
    }
    if (type == SOCK_STREAM && listen(fd, 128) < 0) {
        die("listen");
    }
    return fd;
}

static void serve_http(int listener)
{
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fd < 0) {
            continue;
        }
        if (fork() == 0) {
            close(listener);
            serve_connection(fd);
            _exit(EXIT_SUCCESS);
        }
        close(fd);
    }
}

static void serve_echo(int fd)
{
    static char datagram[65536];

    for (;;) {
        struct sockaddr_storage from;
        socklen_t len = sizeof(from);
        ssize_t n = recvfrom(fd, datagram, sizeof(datagram), 0,
                             (struct sockaddr *)&from, &len);

        if (n >= 0) {
            sendto(fd, datagram, n, 0, (struct sockaddr *)&from, len);
        }
    }
}

static void serve(void)
{
    int http = open_socket(SOCK_STREAM, HTTP_PORT);
    int echo = open_socket(SOCK_DGRAM, ECHO_PORT);

    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    if (fork() == 0) {
        serve_http(http);
    }
    if (fork() == 0) {
        serve_echo(echo);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "serve") == 0) {
        serve();
        return EXIT_SUCCESS;
    }
    if (argc == 4 && strcmp(argv[1], "content") == 0) {
        return content_write(STDOUT_FILENO, strtoull(argv[2], NULL, 10),
                             strtoull(argv[3], NULL, 10))
               ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    fprintf(stderr, "usage: guestd serve | guestd content SEED SIZE\n");
    return EXIT_FAILURE;
}
