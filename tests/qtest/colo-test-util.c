/*
 * What the tests of the COLO proxy's objects have in common: a QEMU without a guest, and the other ends of its sockets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "colo-test-util.h"
#include "net/colo-series.h"
#include "qemu/bswap.h"
#include "qemu/sockets.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <linux/sockios.h>

/* Seconds after which something waited for does not come any more, and a whole test hangs. */
#define PATIENCE 60
#define TEST_MAX 600

/* What QMP may take to answer, microseconds: much for a loaded machine, little for a QEMU that waits for a socket. */
#define AT_ONCE (2 * G_USEC_PER_SEC)

#define READ_SIZE (256 * 1024)

static void G_GNUC_NORETURN G_GNUC_PRINTF(1, 2) fail(const char *fmt, ...)
{
    va_list ap;
    g_autofree char *text = NULL;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_assertion_message(G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC, text);
    abort();
}

/* Life */

static char *read_stderr(ColoTest *t)
{
    g_autofree char *name = g_strdup_printf("%s/stderr", t->dir);
    char *text = NULL;

    g_file_get_contents(name, &text, NULL, NULL);
    return text ?: g_strdup("");
}

static void remove_dir(ColoTest *t)
{
    GDir *dir = g_dir_open(t->dir, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(t->dir, name, NULL);

        unlink(path);
    }
    if (dir) {
        g_dir_close(dir);
    }
    rmdir(t->dir);
}

/* Called when a test fails. */
static void on_abort(void *opaque)
{
    ColoTest *t = opaque;
    g_autofree char *text = read_stderr(t);

    fprintf(stderr, "QEMU's stderr:\n%s", text);
    remove_dir(t);
}

static void on_alarm(int signal)
{
    static const char text[] = "the test hangs\n";

    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0) {
        _exit(1);
    }
    abort();
}

static ColoPeer *peer_new(ColoTest *t, int fd, bool vnet)
{
    ColoPeer *p = g_new0(ColoPeer, 1);

    p->test = t;
    p->fd = fd;
    p->capture = -1;
    p->header = vnet ? 8 : 4;
    p->out = g_byte_array_new();
    p->in = g_byte_array_new();
    qemu_set_cloexec(fd);
    g_unix_set_fd_nonblocking(fd, true, NULL);
    g_ptr_array_add(t->peers, p);
    return p;
}

static void peer_free(ColoPeer *p)
{
    close(p->fd);
    if (p->capture >= 0) {
        close(p->capture);
    }
    g_byte_array_unref(p->out);
    g_byte_array_unref(p->in);
    g_free(p);
}

/* One end of a connection whose other is @qemu_fd. */
static ColoPeer *peer_new_pair(ColoTest *t, int *qemu_fd)
{
    int fds[2];

    g_assert_cmpint(socketpair(PF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    *qemu_fd = fds[1];
    return peer_new(t, fds[0], false);
}

static void open_capture(ColoPeer *p, const char *name)
{
    g_autofree char *path = g_strdup_printf("%s/%s", p->test->dir, name);
    uint8_t header[CAPTURE_HEADER];

    p->capture = open(path, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(p->capture, >=, 0);
    g_assert_cmpint(read(p->capture, header, sizeof(header)), ==, sizeof(header));
    p->header = CAPTURE_PACKET_HEADER;
}

ColoTest *colo_test_start(const char *chardevs, const char *fmt, ...)
{
    ColoTest *t = g_new0(ColoTest, 1);
    g_auto(GStrv) ids = g_strsplit(chardevs, " ", 0);
    g_autoptr(GString) arguments = g_string_new("-M none -nodefaults ");
    va_list ap;
    int host_fd, guest_fd;

    t->dir = g_dir_make_tmp("colo-test-XXXXXX", NULL);
    g_assert_nonnull(t->dir);
    t->peers = g_ptr_array_new();
    t->messages = g_ptr_array_new_with_free_func(g_free);

    t->host = peer_new_pair(t, &host_fd);
    t->guest = peer_new_pair(t, &guest_fd);
    g_string_append_printf(arguments,
                           "-netdev socket,id=bn0,fd=%d -netdev hubport,id=hp0,hubid=0,netdev=bn0 "
                           "-netdev socket,id=bn1,fd=%d -netdev hubport,id=hp1,hubid=0,netdev=bn1 "
                           "-object filter-buffer,id=swallow,netdev=bn1,queue=rx,interval=1000000 "
                           "-object filter-dump,id=dump,netdev=bn1,queue=rx,file=%s/guest,maxlen=%d ",
                           host_fd, guest_fd, t->dir, COLO_TEST_LONGEST);
    for (char **id = ids; *id && **id; id++) {
        g_string_append_printf(arguments, "-chardev socket,id=%s,path=%s/%s,server=on,wait=off ", *id, t->dir, *id);
    }
    va_start(ap, fmt);
    g_string_append_vprintf(arguments, fmt, ap);
    va_end(ap);
    g_string_append_printf(arguments, " 2>%s/stderr ", t->dir);

    signal(SIGALRM, on_alarm);
    alarm(TEST_MAX);
    t->qts = qtest_init(arguments->str);
    qtest_add_abrt_handler(on_abort, t);
    close(host_fd);
    close(guest_fd);
    open_capture(t->guest, "guest");
    return t;
}

static bool qemu_is_gone(void *opaque)
{
    ColoTest *t = opaque;

    return t->gone;
}

void colo_test_quit(ColoTest *t)
{
    if (!t->gone) {
        qobject_unref(qtest_qmp(t->qts, "{ 'execute': 'quit' }"));
        colo_test_wait(t, qemu_is_gone, t, "QEMU's exit");
    }
}

void colo_test_expect_message(ColoTest *t, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_ptr_array_add(t->messages, g_strdup_vprintf(fmt, ap));
    va_end(ap);
}

static bool take_message(ColoTest *t, const char *line)
{
    for (guint i = 0; i < t->messages->len; i++) {
        if (g_pattern_match_simple(t->messages->pdata[i], line)) {
            g_ptr_array_remove_index(t->messages, i);
            return true;
        }
    }
    return false;
}

static void check_messages(ColoTest *t)
{
    g_autofree char *text = read_stderr(t);
    g_auto(GStrv) lines = g_strsplit(text, "\n", 0);

    for (char **line = lines; *line; line++) {
        /* The sanitizer says the first of every QEMU; without the second a QEMU of an older series would take its time. */
        if (**line && !strstr(*line, "ASan doesn't fully support makecontext") &&
            !strstr(*line, "external DH parameters file") && !take_message(t, *line)) {
            fail("QEMU says what it should not, or too often: %s", *line);
        }
    }
    if (t->messages->len) {
        fail("QEMU does not say: %s", (char *)t->messages->pdata[0]);
    }
}

void colo_test_end(ColoTest *t)
{
    colo_test_quit(t);
    check_messages(t);
    qtest_remove_abrt_handler(t);
    qtest_quit(t->qts);
    alarm(0);

    g_ptr_array_foreach(t->peers, (GFunc)peer_free, NULL);
    g_ptr_array_unref(t->peers);
    g_ptr_array_unref(t->messages);
    remove_dir(t);
    g_free(t->dir);
    g_free(t);
}

/* Connections */

/* Reads from @fd what has come; returns what read() does. */
static ssize_t peer_read(ColoPeer *p, int fd)
{
    guint before;
    ssize_t len;

    if (p->taken > p->in->len / 2) {
        g_byte_array_remove_range(p->in, 0, p->taken);
        p->taken = 0;
    }
    before = p->in->len;
    g_byte_array_set_size(p->in, before + READ_SIZE);
    len = read(fd, p->in->data + before, READ_SIZE);
    g_byte_array_set_size(p->in, before + MAX(len, 0));
    return len;
}

static void peer_readable(ColoPeer *p)
{
    guint before = p->in->len - p->taken;
    ssize_t len = peer_read(p, p->fd);

    p->closed = len == 0 || (len < 0 && errno != EAGAIN);
    if (p->capture >= 0) {
        g_byte_array_set_size(p->in, p->taken + before);    /* what was swallowed, at QEMU's exit */
    }
}

static void peer_write(ColoPeer *p)
{
    ssize_t len = send(p->fd, p->out->data + p->written, p->out->len - p->written, MSG_NOSIGNAL);

    if (len < 0) {
        if (errno != EAGAIN) {
            /* What QEMU has said before is still there. */
            while (!p->closed && !p->deaf) {
                peer_readable(p);
            }
            p->closed = true;
        }
        return;
    }
    p->written += len;
    if (p->written == p->out->len) {
        g_byte_array_set_size(p->out, 0);
        p->written = 0;
    }
}

/* Writes and reads what can be, after at most @ms of waiting until something can. */
static void keep_going(ColoTest *t, int ms)
{
    g_autofree struct pollfd *fds = g_new0(struct pollfd, t->peers->len);

    for (guint i = 0; i < t->peers->len; i++) {
        ColoPeer *p = t->peers->pdata[i];

        fds[i].events = (p->deaf ? 0 : POLLIN) | (p->out->len ? POLLOUT : 0);
        fds[i].fd = p->closed || !fds[i].events ? -1 : p->fd;
    }
    g_assert_true(poll(fds, t->peers->len, ms) >= 0 || errno == EINTR);
    for (guint i = 0; i < t->peers->len; i++) {
        ColoPeer *p = t->peers->pdata[i];

        if (fds[i].revents & POLLOUT) {
            peer_write(p);
        }
        if (fds[i].revents & ~POLLOUT && !p->deaf) {
            peer_readable(p);
        }
        while (p->capture >= 0 && peer_read(p, p->capture) > 0) {
            /* there may be more */
        }
    }
    if (!t->gone && !qtest_probe_child(t->qts)) {
        t->gone = true;
    }
}

void colo_test_wait(ColoTest *t, ColoTestDone *done, void *opaque, const char *what)
{
    int64_t deadline = g_get_monotonic_time() + PATIENCE * G_USEC_PER_SEC;

    while (!done(opaque)) {
        if (g_get_monotonic_time() > deadline) {
            fail("waited in vain for %s", what);
        }
        keep_going(t, 1);
    }
}

void colo_test_run(ColoTest *t, int ms)
{
    int64_t end = g_get_monotonic_time() + ms * 1000;

    do {
        keep_going(t, 1);
    } while (g_get_monotonic_time() < end);
}

ColoPeer *colo_test_connect(ColoTest *t, const char *chardev, bool vnet)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(PF_UNIX, SOCK_STREAM, 0);

    g_assert_cmpint(fd, >=, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", t->dir, chardev);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    return peer_new(t, fd, vnet);
}

typedef struct {
    ColoTest *test;
    const char *chardev;
} Connecting;

static bool has_connected(void *opaque)
{
    Connecting *c = opaque;
    QDict *answer = qtest_qmp(c->test->qts, "{ 'execute': 'query-chardev' }");
    QListEntry *entry;
    bool connected = false;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(answer, "return"), entry) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(entry));

        if (!strcmp(qdict_get_str(info, "label"), c->chardev)) {
            connected = !g_str_has_prefix(qdict_get_str(info, "filename"), "disconnected:");
        }
    }
    qobject_unref(answer);
    return connected;
}

void colo_test_wait_connected(ColoTest *t, const char *chardev)
{
    Connecting connecting = { t, chardev };

    colo_test_wait(t, has_connected, &connecting, "QEMU to accept the connection");
}

typedef struct {
    int listener;
    int fd;
} Accepting;

static bool has_accepted(void *opaque)
{
    Accepting *a = opaque;

    a->fd = accept(a->listener, NULL, NULL);
    return a->fd >= 0;
}

ColoPeer *colo_test_accept(ColoTest *t, int listener)
{
    Accepting accepting = { listener, -1 };

    g_unix_set_fd_nonblocking(listener, true, NULL);
    colo_test_wait(t, has_accepted, &accepting, "QEMU to connect");
    return peer_new(t, accepting.fd, false);
}

ColoPeer *colo_test_adopt(ColoTest *t, int fd)
{
    return peer_new(t, fd, false);
}

void colo_peer_close(ColoPeer *p)
{
    g_ptr_array_remove(p->test->peers, p);
    peer_free(p);
}

void colo_peer_send_bytes(ColoPeer *p, const void *bytes, size_t len)
{
    g_byte_array_append(p->out, bytes, len);
}

void colo_peer_send(ColoPeer *p, const void *frame, size_t size)
{
    static const uint8_t vnet_header[32];
    uint8_t header[8];

    stl_be_p(header, size + p->vnet_len);
    stl_be_p(header + 4, p->vnet_len);
    colo_peer_send_bytes(p, header, p->header == 8 ? 8 : 4);
    colo_peer_send_bytes(p, vnet_header, p->vnet_len);
    colo_peer_send_bytes(p, frame, size);
}

void colo_peer_send_frame(ColoPeer *p, GByteArray *frame)
{
    colo_peer_send(p, frame->data, frame->len);
}

static bool is_flushed(void *opaque)
{
    ColoPeer *p = opaque;
    int unread = 0;

    g_assert_false(p->closed);
    g_assert_cmpint(ioctl(p->fd, SIOCOUTQ, &unread), ==, 0);
    return !p->out->len && !unread;
}

void colo_peer_flush(ColoPeer *p)
{
    colo_test_wait(p->test, is_flushed, p, "QEMU to read");
}

GByteArray *colo_peer_try_take(ColoPeer *p)
{
    size_t come = p->in->len - p->taken;
    uint8_t *at = p->in->data + p->taken;
    uint32_t size, vnet_len;
    GByteArray *frame;

    if (come < p->header) {
        return NULL;
    }
    size = p->capture < 0 ? ldl_be_p(at) : ldl_he_p(at + 8);
    vnet_len = p->header == 8 ? ldl_be_p(at + 4) : 0;
    g_assert_cmpuint(size, >, 0);
    g_assert_cmpuint(size, <=, COLO_TEST_LONGEST + vnet_len);
    g_assert_cmpuint(vnet_len, <=, MIN(size, 20));
    if (come < p->header + size) {
        return NULL;
    }
    frame = g_byte_array_append(g_byte_array_new(), at + p->header + vnet_len, size - vnet_len);
    p->taken += p->header + size;
    return frame;
}

typedef struct {
    ColoPeer *peer;
    GByteArray *frame;
} Taking;

static bool has_taken(void *opaque)
{
    Taking *taking = opaque;

    taking->frame = colo_peer_try_take(taking->peer);
    if (!taking->frame && taking->peer->closed) {
        fail("QEMU has closed the connection instead of sending a packet");
    }
    return taking->frame;
}

GByteArray *colo_peer_take(ColoPeer *p)
{
    Taking taking = { .peer = p };

    colo_test_wait(p->test, has_taken, &taking, "a packet");
    return taking.frame;
}

void colo_peer_expect(ColoPeer *p, const void *frame, size_t size)
{
    GByteArray *got = colo_peer_take(p);

    g_assert_cmpmem(got->data, got->len, frame, size);
    g_byte_array_unref(got);
}

void colo_peer_expect_frame(ColoPeer *p, const GByteArray *frame)
{
    colo_peer_expect(p, frame->data, frame->len);
}

static bool is_closed(void *opaque)
{
    ColoPeer *p = opaque;

    return p->closed;
}

void colo_peer_expect_end(ColoPeer *p)
{
    colo_test_wait(p->test, is_closed, p, "QEMU to close the connection");
    g_assert_null(colo_peer_try_take(p));
}

void colo_peer_expect_closed(ColoPeer *p)
{
    colo_peer_expect_end(p);
    g_assert_true(colo_peer_is_silent(p));
}

bool colo_peer_is_silent(ColoPeer *p)
{
    keep_going(p->test, 0);
    return p->in->len == p->taken;
}

/* The stream on a chardev */

/* Sends what waits on @p so that QEMU reads it in pieces of @piece bytes. */
static void send_in_pieces(ColoPeer *p, size_t piece)
{
    g_autoptr(GByteArray) bytes = p->out;

    p->out = g_byte_array_new();
    for (size_t at = 0; at < bytes->len; at += piece) {
        colo_peer_send_bytes(p, bytes->data + at, MIN(piece, bytes->len - at));
        colo_peer_flush(p);
    }
}

/* The frames of one round: datagrams of different lengths. */
static void send_some(ColoPeer *p, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        g_autoptr(GByteArray) payload = colo_test_bytes(i, 4 + i % 7);
        g_autoptr(GByteArray) frame = colo_test_udp(0, payload->data, payload->len);

        colo_peer_send_frame(p, frame);
    }
}

static void expect_some(ColoPeer *p, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        g_autoptr(GByteArray) payload = colo_test_bytes(i, 4 + i % 7);
        g_autoptr(GByteArray) frame = colo_test_udp(0, payload->data, payload->len);

        colo_peer_expect_frame(p, frame);
    }
}

void colo_test_splits(ColoPeer *in, ColoPeer *out, ColoPeer *pair)
{
    g_autoptr(GByteArray) longest = colo_test_bytes(1, pair ? 60000 : COLO_TEST_LONGEST);
    g_autoptr(GByteArray) longest_frame =
        pair ? colo_test_udp(0, longest->data, longest->len) : g_byte_array_ref(longest);
    size_t first;

    send_some(in, 1);
    first = in->out->len;
    g_byte_array_set_size(in->out, 0);

    /* Two packets, byte by byte; then cut every so many bytes, which leaves out no place of the first. */
    for (size_t piece = 1; piece <= first; piece++) {
        if (pair) {
            send_some(pair, 2);
        }
        send_some(in, 2);
        send_in_pieces(in, piece);
        expect_some(out, 2);
    }

    /* Many at once. */
    if (pair) {
        send_some(pair, 3000);
    }
    send_some(in, 3000);
    expect_some(out, 3000);

    /* The longest, at once and in pieces. */
    for (size_t piece = 1000; piece < 1000000; piece *= 17) {
        if (pair) {
            colo_peer_send_frame(pair, longest_frame);
        }
        colo_peer_send_frame(in, longest_frame);
        send_in_pieces(in, piece);
        colo_peer_expect_frame(out, longest_frame);
    }
}

void colo_test_bad_lengths(ColoTest *t, const char *chardev, bool vnet, const char *name)
{
    static const struct {
        uint32_t size;
        uint32_t vnet_len;
        bool only_vnet;
        uint32_t bad;
    } cases[] = {
        { 0, 0, false, 0 },
        { COLO_TEST_LONGEST + 21, 0, false, COLO_TEST_LONGEST + 21 },
        { 0xffffffff, 0, false, 0xffffffff },
        { COLO_TEST_LONGEST + 1, 0, false, COLO_TEST_LONGEST + 1 },
        { 100, 21, true, 21 },
        { 10, 11, true, 11 },
        { 100, 0xffffffff, true, 0xffffffff },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        ColoPeer *p;
        uint8_t header[8];

        if (cases[i].only_vnet && !vnet) {
            continue;
        }
        p = colo_test_connect(t, chardev, vnet);
        stl_be_p(header, cases[i].size);
        stl_be_p(header + 4, cases[i].vnet_len);
        colo_test_expect_message(t, "*%s* %u *", name, cases[i].bad);
        colo_peer_send_bytes(p, header, p->header);
        colo_peer_send_bytes(p, "and what was to follow", 22);
        colo_peer_expect_closed(p);
        colo_peer_close(p);
        colo_test_assert_responsive(t);
    }
}

/* Objects */

static G_GNUC_PRINTF(2, 0) QDict *object_add(ColoTest *t, const char *fmt, va_list ap)
{
    g_autofree char *command = g_strdup_printf("{ 'execute': 'object-add', 'arguments': { %s } }", fmt);

    return qtest_vqmp(t->qts, command, ap);
}

void colo_test_add(ColoTest *t, const char *fmt, ...)
{
    va_list ap;
    QDict *answer;

    va_start(ap, fmt);
    answer = object_add(t, fmt, ap);
    va_end(ap);
    if (qdict_haskey(answer, "error")) {
        fail("object-add: %s", qdict_get_str(qdict_get_qdict(answer, "error"), "desc"));
    }
    qobject_unref(answer);
}

void colo_test_del(ColoTest *t, const char *id)
{
    qtest_qmp_assert_success(t->qts, "{ 'execute': 'object-del', 'arguments': { 'id': %s } }", id);
}

static void assert_has_words(const char *text, const char *words)
{
    g_auto(GStrv) list = g_strsplit(words, "|", 0);

    for (char **word = list; *word; word++) {
        if (!strstr(text, *word)) {
            fail("\"%s\" is not in: %s", *word, text);
        }
    }
}

static GString *list_objects(ColoTest *t)
{
    QDict *answer = qtest_qmp(t->qts, "{ 'execute': 'qom-list', 'arguments': { 'path': '/objects' } }");
    GString *text = qobject_to_json(QOBJECT(answer));

    qobject_unref(answer);
    return text;
}

void colo_test_refused(ColoTest *t, const char *words, const char *fmt, ...)
{
    g_autoptr(GString) before = list_objects(t);
    g_autoptr(GString) after = NULL;
    va_list ap;
    QDict *answer;

    va_start(ap, fmt);
    answer = object_add(t, fmt, ap);
    va_end(ap);
    if (!qdict_haskey(answer, "error")) {
        fail("object-add takes: %s", fmt);
    }
    assert_has_words(qdict_get_str(qdict_get_qdict(answer, "error"), "desc"), words);
    qobject_unref(answer);
    after = list_objects(t);
    g_assert_cmpstr(before->str, ==, after->str);
}

void colo_test_refused_at_start(const char *words, const char *arguments)
{
    g_autofree char *command = g_strdup_printf("exec timeout %d %s -M none -nodefaults -display none -accel qtest %s",
                                               PATIENCE, g_getenv("QTEST_QEMU_BINARY"), arguments);
    const char *argv[] = { "/bin/sh", "-c", command, NULL };
    g_autofree char *text = NULL;
    int status;

    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL, &text,
                               &status, NULL));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 1) {
        fail("exit status %#x instead of 1 for %s; stderr: %s", status, arguments, text);
    }
    assert_has_words(text, words);
}

QDict *colo_test_query(ColoTest *t, const char *id)
{
    QDict *answer = qtest_qmp(t->qts, "{ 'execute': 'query-colo-proxy' }");
    QListEntry *entry;
    QDict *found = NULL;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(answer, "return"), entry) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(entry));

        if (!strcmp(qdict_get_str(info, "id"), id)) {
            found = qobject_ref(info);
        }
    }
    qobject_unref(answer);
    if (!found) {
        fail("query-colo-proxy does not tell of %s", id);
    }
    return found;
}

/* How many divergences of this reason the list has. */
static uint64_t divergences(QList *list, const char *reason)
{
    QListEntry *entry;

    QLIST_FOREACH_ENTRY(list, entry) {
        QDict *count = qobject_to(QDict, qlist_entry_obj(entry));

        if (!strcmp(qdict_get_str(count, "reason"), reason)) {
            return qdict_get_int(count, "count");
        }
    }
    return 0;
}

uint64_t colo_test_count(ColoTest *t, const char *id, const char *path)
{
    QDict *info = colo_test_query(t, id);
    g_auto(GStrv) words = g_strsplit(path, ".", 2);
    QObject *member = qdict_get(info, words[0]);
    uint64_t value;

    if (!member) {
        fail("query-colo-proxy tells nothing of %s: %s", id, words[0]);
    }
    switch (qobject_type(member)) {
    case QTYPE_QDICT:
        value = qdict_get_int(qobject_to(QDict, member), words[1]);
        break;
    case QTYPE_QLIST:
        value = divergences(qobject_to(QList, member), words[1]);
        break;
    case QTYPE_QBOOL:
        value = qdict_get_bool(info, words[0]);
        break;
    default:
        value = qdict_get_int(info, words[0]);
        break;
    }
    qobject_unref(info);
    return value;
}

typedef struct {
    ColoTest *test;
    const char *id;
    const char *path;
    uint64_t least;
    uint64_t most;
} Counting;

static bool has_counted(void *opaque)
{
    Counting *c = opaque;
    uint64_t seen = colo_test_count(c->test, c->id, c->path);

    return seen >= c->least && seen <= c->most;
}

static void wait_count(ColoTest *t, const char *id, const char *path, uint64_t least, uint64_t most)
{
    Counting counting = { t, id, path, least, most };
    g_autofree char *what = g_strdup_printf("%s of %s to be %" PRIu64, path, id, least);

    colo_test_wait(t, has_counted, &counting, what);
}

void colo_test_wait_count(ColoTest *t, const char *id, const char *path, uint64_t value)
{
    wait_count(t, id, path, value, value);
}

void colo_test_wait_count_at_least(ColoTest *t, const char *id, const char *path, uint64_t value)
{
    wait_count(t, id, path, value, UINT64_MAX);
}

void colo_test_assert_responsive(ColoTest *t)
{
    int64_t start = g_get_monotonic_time();

    qtest_qmp_assert_success(t->qts, "{ 'execute': 'query-status' }");
    g_assert_cmpint(g_get_monotonic_time() - start, <, AT_ONCE);
}

/* Frames */

enum {
    ETHERNET = 14,
    IP = 20,
    TCP = 20,
    UDP = 8,
};

static uint16_t sum(const uint8_t *bytes, uint32_t len, uint32_t start)
{
    uint32_t total = start;

    for (uint32_t i = 0; i < len; i++) {
        total += i % 2 ? bytes[i] : bytes[i] << 8;
        total = (total & 0xffff) + (total >> 16);
    }
    return total;
}

/* Of addresses, protocol and length. */
static uint16_t pseudo_sum(const uint8_t *ip)
{
    return sum(ip + 12, 8, ip[9] + lduw_be_p(ip + 2) - IP);
}

static GByteArray *frame_ip(uint8_t proto, uint32_t client, bool to_guest, const uint8_t *body, uint32_t len,
                            uint32_t checksum)
{
    GByteArray *frame = g_byte_array_new();
    uint8_t *ip, *l4;
    uint32_t guest_address = 0x0a000002;
    uint32_t client_address = 0x0a010001 + client / 50000;

    g_byte_array_set_size(frame, ETHERNET + IP + len);
    memcpy(frame->data, to_guest ? "\x52\x54\0\0\0\2\x52\x54\0\0\0\1\x08\0" : "\x52\x54\0\0\0\1\x52\x54\0\0\0\2\x08\0",
           ETHERNET);
    ip = frame->data + ETHERNET;
    l4 = ip + IP;
    memset(ip, 0, IP);
    ip[0] = 0x45;
    stw_be_p(ip + 2, IP + len);
    ip[8] = 64;
    ip[9] = proto;
    stl_be_p(ip + 12, to_guest ? client_address : guest_address);
    stl_be_p(ip + 16, to_guest ? guest_address : client_address);
    stw_be_p(ip + 10, ~sum(ip, IP, 0));
    memcpy(l4, body, len);
    stw_be_p(l4 + (to_guest ? 0 : 2), 10000 + client % 50000);
    stw_be_p(l4 + checksum, ~sum(l4, len, pseudo_sum(ip)));
    return frame;
}

GByteArray *colo_test_tcp(const ColoTestPacket *packet)
{
    uint32_t options = packet->sack[0] || packet->sack[1] ? 12 : 0;
    uint32_t header = TCP + options;
    g_autofree uint8_t *tcp = g_malloc0(header + packet->len);

    stw_be_p(tcp + (packet->to_guest ? 2 : 0), 80);
    stl_be_p(tcp + 4, packet->seq);
    stl_be_p(tcp + 8, packet->ack);
    tcp[12] = header / 4 << 4;
    tcp[13] = packet->flags;
    stw_be_p(tcp + 14, 0x4000);
    if (options) {
        memcpy(tcp + TCP, "\1\1\5\x0a", 4);
        stl_be_p(tcp + TCP + 4, packet->sack[0]);
        stl_be_p(tcp + TCP + 8, packet->sack[1]);
    }
    if (packet->len) {
        memcpy(tcp + header, packet->payload, packet->len);
    }
    return frame_ip(6, packet->client, packet->to_guest, tcp, header + packet->len, 16);
}

GByteArray *colo_test_udp(uint32_t client, const void *payload, uint32_t len)
{
    g_autofree uint8_t *udp = g_malloc0(UDP + len);

    stw_be_p(udp, 53);
    stw_be_p(udp + 4, UDP + len);
    memcpy(udp + UDP, payload, len);
    return frame_ip(17, client, false, udp, UDP + len, 6);
}

GByteArray *colo_test_arp(uint8_t host)
{
    uint8_t frame[42] = {
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0, 0, 2, 0x08, 0x06,
        0, 1, 0x08, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0, host,
    };

    return g_byte_array_append(g_byte_array_new(), frame, sizeof(frame));
}

GByteArray *colo_test_epoch_mark(uint64_t number)
{
    uint8_t frame[32] = "\0\0\0\0\0\0\0\0\0\0\0\0\x88\xb5" "COLO epoch";

    stq_be_p(frame + 24, number);
    return g_byte_array_append(g_byte_array_new(), frame, sizeof(frame));
}

ColoTestPacket colo_test_parse_tcp(const GByteArray *frame)
{
    ColoTestPacket packet = { 0 };
    uint8_t *ip = frame->data + ETHERNET;
    uint8_t *tcp = ip + IP;
    uint32_t header, len, client_address;

    g_assert_cmpuint(frame->len, >=, ETHERNET + IP + TCP);
    g_assert_cmpuint(lduw_be_p(ip - 2), ==, 0x0800);
    g_assert_cmpuint(ip[0], ==, 0x45);
    g_assert_cmpuint(ip[9], ==, 6);
    len = lduw_be_p(ip + 2) - IP;
    header = (tcp[12] >> 4) * 4;
    g_assert_cmpuint(ETHERNET + IP + len, ==, frame->len);
    g_assert_cmpuint(header, <=, len);
    g_assert_cmpuint(sum(ip, IP, 0), ==, 0xffff);
    g_assert_cmpuint(sum(tcp, len, pseudo_sum(ip)), ==, 0xffff);

    packet.to_guest = lduw_be_p(tcp + 2) == 80;
    client_address = ldl_be_p(ip + (packet.to_guest ? 12 : 16));
    packet.client = (client_address - 0x0a010001) * 50000 + lduw_be_p(tcp + (packet.to_guest ? 0 : 2)) - 10000;
    packet.seq = ldl_be_p(tcp + 4);
    packet.ack = ldl_be_p(tcp + 8);
    packet.flags = tcp[13];
    if (header > TCP) {
        g_assert_cmpmem(tcp + TCP, 4, "\1\1\5\x0a", 4);
        packet.sack[0] = ldl_be_p(tcp + TCP + 4);
        packet.sack[1] = ldl_be_p(tcp + TCP + 8);
    }
    packet.payload = tcp + header;
    packet.len = len - header;
    return packet;
}

GByteArray *colo_test_bytes(uint32_t seed, uint32_t len)
{
    GByteArray *bytes = g_byte_array_new();
    uint32_t x = seed * 2654435761u + 1;

    g_byte_array_set_size(bytes, len);
    for (uint32_t i = 0; i < len; i++) {
        x = x * 1664525 + 1013904223;
        bytes->data[i] = i < 4 ? seed >> (24 - 8 * i) : x >> 24;
    }
    return bytes;
}
