/*
 * The peer: a colo-proxy's connection to the other node
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * The primary listens, the secondary connects, again and again until somebody is there; so either may be started first, and a
 * new secondary finds its primary.  Over the connection goes the core's session (net/colo/session.c); here its bytes are read
 * and written, and it is told the time.
 *
 * Everything happens in the main loop.  A packet has to go there in any case, for that is where netdevs and network cards live;
 * another thread in between would cost each answer two more wake-ups.  One turn of the main loop reads all that has come, and
 * what it has brought to be sent is written with one call before the loop sleeps.
 *
 * One connection at a time.  Once it has said hello, whoever else connects is turned away; a peer that has gone without a word is
 * found out by its silence.
 */

#include "qemu/osdep.h"
#include "io/channel-tls.h"
#include "net/colo-peer.h"
#include "net/colo-turn.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "trace.h"

/* What is read at once, bytes; and how often before others get their turn. */
#define READ_SIZE (256 * 1024)
#define READS_MAX 8

/* Connections that wait to be accepted: the secondary's must not have to wait because others knock, too. */
#define BACKLOG 16

static void attempt_cut(ColoPeerAttempt *attempt);

static int64_t peer_now(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

/* The end of a connection */

/* As far as the socket takes it: it is the last that is written. */
static void write_last(ColoPeer *peer)
{
    qio_channel_write(peer->channel, (const char *)colo_session_bytes(peer->session), colo_session_size(peer->session),
                      NULL);
}

static void watch_end(guint *watch)
{
    if (*watch) {
        g_source_remove(*watch);
        *watch = 0;
    }
}

static void peer_disconnect(ColoPeer *peer)
{
    watch_end(&peer->read_watch);
    watch_end(&peer->write_watch);
    colo_deadline_set(&peer->deadline, INT64_MAX);
    qio_channel_close(peer->channel, NULL);
    object_unref(OBJECT(peer->channel));
    peer->channel = NULL;
    colo_session_free(peer->session);
    peer->session = NULL;
    peer->greeted = false;
}

static void peer_try_again(ColoPeer *peer)
{
    if (!peer->listener) {
        timer_mod(peer->again, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + peer->reconnect * 1000LL);
    }
}

/* The connection has ended, or must. */
static void peer_lose(ColoPeer *peer, ColoPeerLostReason reason, const char *why)
{
    bool greeted = peer->greeted;
    bool turned_away = greeted && !peer->listener && reason == COLO_PEER_LOST_REASON_CLOSED &&
                       !colo_session_has_heard(peer->session);

    /* It will be again, each time; that is told once. */
    if (turned_away ? g_strcmp0(why, peer->turned_away) : greeted || !peer->complained) {
        peer->complained = !greeted || !peer->listener;     /* whoever comes to the primary next may be somebody else */
        warn_report("%s: the connection to the other node has ended: %s", peer->name, why);
    }
    peer_disconnect(peer);
    peer_try_again(peer);
    g_free(peer->turned_away);
    peer->turned_away = turned_away ? g_strdup(why) : NULL;
    if (greeted && !turned_away) {
        trace_colo_peer_lost(peer->name, ColoPeerLostReason_str(reason));
        peer->ops->lost(reason, peer->opaque);
    }
}

/* The session has ended; it knows why. */
static void peer_session_ended(ColoPeer *peer, ColoPeerLostReason reason)
{
    g_autofree char *why = g_strdup(colo_session_error(peer->session));

    write_last(peer);
    peer_lose(peer, reason, why);
}

/* Writing */

static void peer_flush(ColoPeer *peer);

static gboolean peer_writable(QIOChannel *ioc, GIOCondition condition, void *opaque)
{
    ColoPeer *peer = opaque;

    peer->write_watch = 0;
    peer_flush(peer);
    return G_SOURCE_REMOVE;
}

static void peer_flush(ColoPeer *peer)
{
    while (peer->session && !peer->write_watch && colo_session_size(peer->session)) {
        Error *err = NULL;
        ssize_t len = qio_channel_write(peer->channel, (const char *)colo_session_bytes(peer->session),
                                        colo_session_size(peer->session), &err);

        if (len >= 0) {
            colo_session_wrote(peer->session, len);
        } else if (len == QIO_CHANNEL_ERR_BLOCK) {
            peer->write_watch = qio_channel_add_watch(peer->channel, G_IO_OUT, peer_writable, peer, NULL);
        } else {
            peer_lose(peer, COLO_PEER_LOST_REASON_CLOSED, error_get_pretty(err));
            error_free(err);
        }
    }
}

/* Time */

static void peer_set_timer(ColoPeer *peer)
{
    colo_deadline_set(&peer->deadline, colo_session_deadline(peer->session));
}

static void peer_turn_ends(void *opaque)
{
    ColoPeer *peer = opaque;

    peer->ops->turn_ends(peer->opaque);
    peer_flush(peer);
}

/* Reading */

/* Returns: G_SOURCE_REMOVE if the connection has ended. */
static gboolean peer_read(ColoPeer *peer)
{
    for (int i = 0; i < READS_MAX; i++) {
        Error *err = NULL;
        ssize_t len = qio_channel_read(peer->channel, (char *)peer->buffer, READ_SIZE, &err);

        if (len == QIO_CHANNEL_ERR_BLOCK) {
            break;
        }
        if (len <= 0) {
            peer_lose(peer, COLO_PEER_LOST_REASON_CLOSED, err ? error_get_pretty(err) : "it was closed there");
            error_free(err);
            return G_SOURCE_REMOVE;
        }
        trace_colo_peer_read(peer->name, len);
        if (!colo_session_read(peer->session, peer->buffer, len, peer_now())) {
            peer_session_ended(peer, COLO_PEER_LOST_REASON_CLOSED);
            return G_SOURCE_REMOVE;
        }
        if (len < READ_SIZE && !peer->tls_creds) {
            break;              /* that was all; TLS may have more in store */
        }
    }
    peer_set_timer(peer);
    return G_SOURCE_CONTINUE;
}

static gboolean peer_readable(QIOChannel *ioc, GIOCondition condition, void *opaque)
{
    return peer_read(opaque);
}

/*
 * Before the other node is given up for its silence, what lies in the socket is read: if we have stood still ourselves, that is
 * where its signs of life are.
 */
static void peer_timer(void *opaque)
{
    ColoPeer *peer = opaque;

    if (!peer->session) {
        attempt_cut(peer->attempt);     /* the handshake takes too long */
        return;
    }
    if (colo_session_is_silent(peer->session, peer_now()) && peer_read(peer) == G_SOURCE_REMOVE) {
        return;                         /* it has ended in another way */
    }
    if (colo_session_tick(peer->session, peer_now())) {
        peer_set_timer(peer);
    } else {
        peer_session_ended(peer, COLO_PEER_LOST_REASON_SILENT);
    }
}

static const char *peer_session_ready(uint64_t instance, void *opaque)
{
    ColoPeer *peer = opaque;
    const char *objection = peer->ops->ready(instance, peer->opaque);

    if (!objection) {
        trace_colo_peer_ready(peer->name);
        peer->complained = false;
        peer->greeted = true;
    }
    return objection;
}

static void peer_session_packet(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    ColoPeer *peer = opaque;

    peer->ops->packet(frame, size, vnet_len, peer->opaque);
}

static bool peer_session_epoch(uint64_t number, void *opaque)
{
    ColoPeer *peer = opaque;

    return peer->ops->epoch(number, peer->opaque);
}

static const ColoSessionOps peer_session_ops = {
    .ready = peer_session_ready,
    .packet = peer_session_packet,
    .epoch = peer_session_epoch,
};

/* The beginning of a connection */

/* What leads to one; it may end after the peer has been closed. */
struct ColoPeerAttempt {
    ColoPeer *peer;             /* NULL: it has */
    QIOChannelSocket *socket;
};

static ColoPeerAttempt *attempt_new(ColoPeer *peer, QIOChannelSocket *socket)
{
    ColoPeerAttempt *attempt = g_new0(ColoPeerAttempt, 1);

    attempt->peer = peer;
    attempt->socket = socket;
    object_ref(OBJECT(socket));
    peer->attempt = attempt;
    return attempt;
}

/* Returns whose it was; NULL: that has been closed. */
static ColoPeer *attempt_end(ColoPeerAttempt *attempt)
{
    ColoPeer *peer = attempt->peer;

    if (peer) {
        peer->attempt = NULL;
        colo_deadline_set(&peer->deadline, INT64_MAX);
    }
    object_unref(OBJECT(attempt->socket));
    g_free(attempt);
    return peer;
}

/* Whoever waits for it hears of an error soon. */
static void attempt_cut(ColoPeerAttempt *attempt)
{
    qio_channel_shutdown(QIO_CHANNEL(attempt->socket), QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
}

static void peer_connected(ColoPeer *peer, QIOChannel *channel)
{
    peer->channel = channel;
    object_ref(OBJECT(channel));
    qio_channel_set_blocking(channel, false, NULL);
    qio_channel_set_delay(channel, false);
    peer->session = colo_session_new(&peer->config, &peer_session_ops, peer, peer_now());
    peer->read_watch = qio_channel_add_watch(channel, G_IO_IN, peer_readable, peer, NULL);
    peer_set_timer(peer);
}

static void peer_not_connected(ColoPeer *peer, Error *err)
{
    g_clear_pointer(&peer->turned_away, g_free);
    if (!peer->complained) {
        peer->complained = true;
        warn_report("%s: no connection to the other node yet: %s", peer->name, error_get_pretty(err));
    }
    error_free(err);
    peer_try_again(peer);
}

/* The attempt has come to the end of @task.  Returns whose it is, if that can go on with it; else all is done. */
static ColoPeer *attempt_done(ColoPeerAttempt *attempt, QIOTask *task)
{
    ColoPeer *peer = attempt_end(attempt);
    Error *err = NULL;

    if (!qio_task_propagate_error(task, &err)) {
        return peer;
    }
    if (peer) {
        peer_not_connected(peer, err);
    } else {
        error_free(err);
    }
    return NULL;
}

static void peer_handshake_done(QIOTask *task, void *opaque)
{
    ColoPeer *peer = attempt_done(opaque, task);

    if (peer) {
        peer_connected(peer, QIO_CHANNEL(qio_task_get_source(task)));
    }
}

/* The two ends of @socket are there; if so wanted, TLS comes before all else. */
static void peer_begin(ColoPeer *peer, QIOChannelSocket *socket)
{
    QIOChannelTLS *tls;
    Error *err = NULL;

    if (!peer->tls_creds) {
        peer_connected(peer, QIO_CHANNEL(socket));
        return;
    }
    qio_channel_set_blocking(QIO_CHANNEL(socket), false, NULL);
    tls = peer->listener ? qio_channel_tls_new_server(QIO_CHANNEL(socket), peer->tls_creds, NULL, &err)
                         : qio_channel_tls_new_client(QIO_CHANNEL(socket), peer->tls_creds, peer->tls_hostname, &err);
    if (!tls) {
        peer_not_connected(peer, err);
        return;
    }
    colo_deadline_set(&peer->deadline, peer_now() + peer->config.heartbeat_timeout);
    qio_channel_tls_handshake(tls, peer_handshake_done, attempt_new(peer, socket), NULL, NULL);
    object_unref(OBJECT(tls));          /* the handshake has a reference of its own */
}

/* One whose hello has not come yet makes room for whoever comes. */
static void peer_accept(QIONetListener *listener, QIOChannelSocket *socket, void *opaque)
{
    static const ColoSessionOps none;
    ColoPeer *peer = opaque;
    ColoSession *session;

    if (peer->attempt) {
        attempt_cut(peer->attempt);
        peer->attempt->peer = NULL;
        peer->attempt = NULL;
        colo_deadline_set(&peer->deadline, INT64_MAX);
    } else if (peer->channel && !peer->greeted) {
        peer_disconnect(peer);
    }
    if (!peer->channel) {
        peer_begin(peer, socket);
    } else if (!peer->tls_creds) {
        session = colo_session_new(&peer->config, &none, NULL, 0);
        colo_session_say_goodbye(session, "another one is connected already");
        qio_channel_set_blocking(QIO_CHANNEL(socket), false, NULL);
        qio_channel_write(QIO_CHANNEL(socket), (const char *)colo_session_bytes(session), colo_session_size(session),
                          NULL);
        colo_session_free(session);
    }
}

static void peer_connect_done(QIOTask *task, void *opaque)
{
    ColoPeer *peer = attempt_done(opaque, task);

    if (peer) {
        peer_begin(peer, QIO_CHANNEL_SOCKET(qio_task_get_source(task)));
    }
}

static void peer_connect(ColoPeer *peer)
{
    QIOChannelSocket *socket = qio_channel_socket_new();

    qio_channel_set_name(QIO_CHANNEL(socket), "colo-proxy");
    qio_channel_socket_connect_async(socket, peer->address, peer_connect_done, attempt_new(peer, socket), NULL, NULL);
    object_unref(OBJECT(socket));
}

static void peer_connect_again(void *opaque)
{
    peer_connect(opaque);
}

/* The credentials @id, fit for this end. */
static bool peer_set_tls(ColoPeer *peer, const char *id, Error **errp)
{
    ERRP_GUARD();
    Object *creds = object_resolve_path_component(object_get_objects_root(), id);

    if (!creds || !object_dynamic_cast(creds, TYPE_QCRYPTO_TLS_CREDS)) {
        error_setg(errp, "property 'tls-creds': there are no credentials '%s'; define them first as an object of type "
                   "tls-creds-x509, tls-creds-psk or tls-creds-anon", id);
        return false;
    }
    if (!qcrypto_tls_creds_check_endpoint(QCRYPTO_TLS_CREDS(creds), peer->config.side == COLO_PRIMARY ?
                                          QCRYPTO_TLS_CREDS_ENDPOINT_SERVER : QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT, errp)) {
        error_prepend(errp, "property 'tls-creds': ");
        return false;
    }
    peer->tls_creds = QCRYPTO_TLS_CREDS(creds);
    object_ref(creds);
    if (peer->address->type == SOCKET_ADDRESS_TYPE_INET) {
        peer->tls_hostname = peer->address->u.inet.host;
    }
    return true;
}

bool colo_peer_open(ColoPeer *peer, const char *name, SocketAddress *address, const char *tls_creds,
                    const ColoSessionConfig *config, uint32_t reconnect, const ColoPeerOps *ops, void *opaque, Error **errp)
{
    ERRP_GUARD();

    peer->name = name;
    peer->address = address;
    peer->config = *config;
    peer->reconnect = reconnect;
    peer->ops = ops;
    peer->opaque = opaque;
    if (tls_creds && !peer_set_tls(peer, tls_creds, errp)) {
        return false;
    }
    if (config->side == COLO_PRIMARY) {
        peer->listener = qio_net_listener_new();
        qio_net_listener_set_name(peer->listener, "colo-proxy");
        if (qio_net_listener_open_sync(peer->listener, address, BACKLOG, errp) < 0) {
            error_prepend(errp, "property 'addr': cannot listen there: ");
            object_unref(OBJECT(peer->listener));
            peer->listener = NULL;
            object_unref(OBJECT(peer->tls_creds));
            return false;
        }
        qio_net_listener_set_client_func(peer->listener, peer_accept, peer, NULL);
    }
    peer->buffer = g_malloc(READ_SIZE);
    colo_deadline_init(&peer->deadline, timer_new_ns(QEMU_CLOCK_REALTIME, peer_timer, peer));
    peer->again = timer_new_ms(QEMU_CLOCK_REALTIME, peer_connect_again, peer);
    peer->turn = colo_turn_new(NULL, peer_turn_ends, peer);
    if (config->side == COLO_SECONDARY) {
        peer_connect(peer);
    }
    return true;
}

void colo_peer_close(ColoPeer *peer, const char *why)
{
    if (!peer->turn) {
        return;
    }
    if (peer->listener) {
        qio_net_listener_disconnect(peer->listener);
        object_unref(OBJECT(peer->listener));
        peer->listener = NULL;
    }
    if (peer->attempt) {
        peer->attempt->peer = NULL;
        attempt_cut(peer->attempt);
        peer->attempt = NULL;
    }
    if (peer->channel) {
        colo_session_say_goodbye(peer->session, why);
        write_last(peer);
        peer_disconnect(peer);
    }
    colo_deadline_end(&peer->deadline);
    timer_free(peer->again);
    colo_turn_free(peer->turn);
    peer->turn = NULL;
    object_unref(OBJECT(peer->tls_creds));
    g_free(peer->buffer);
    g_free(peer->turned_away);
}

/* Use */

void colo_peer_drop(ColoPeer *peer, const char *why)
{
    if (peer->channel) {
        colo_session_say_goodbye(peer->session, why);
        write_last(peer);
        peer_disconnect(peer);
        peer_try_again(peer);
    }
}

bool colo_peer_is_ready(const ColoPeer *peer)
{
    return peer->session && colo_session_is_ready(peer->session);
}

bool colo_peer_has_room(const ColoPeer *peer)
{
    return colo_peer_is_ready(peer) && colo_session_has_room(peer->session);
}

void colo_peer_send(ColoPeer *peer, const struct iovec *iov, int iovcnt, uint32_t vnet_len)
{
    size_t size = iov_size(iov, iovcnt);

    iov_to_buf(iov, iovcnt, 0, colo_session_append(peer->session, size, vnet_len), size);
    colo_turn_wanted(NULL);
}

void colo_peer_send_epoch(ColoPeer *peer, uint64_t number)
{
    colo_session_send_epoch(peer->session, number);
    colo_turn_wanted(NULL);
}

void colo_peer_took(ColoPeer *peer, uint64_t size)
{
    if (peer->session) {
        colo_session_took(peer->session, size);
    }
}
