/*
 * Links: packets over a chardev
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * A link never waits.  What is sent goes into an outbox, which is written with one call before the link's thread goes to
 * sleep: so all that one turn of its main loop has brought leaves at once, and no further turn is needed for that.  If the
 * chardev does not take everything, a watch goes on with it later.  Whoever sends looks at the outbox's size and decides
 * what to do when it grows.  A connection that breaks in the middle of a packet begins anew with that packet.
 *
 * Even a link that is only written to reads, and throws away what comes: the end of a connection shows
 * in reading first.
 *
 * With Nagle's algorithm a socket would keep a packet back until the peer's delayed acknowledgement of the one before, for
 * 40 ms or more; there is nothing to wait for, so it is switched off.
 */

#include "qemu/osdep.h"
#include "chardev/char-socket.h"
#include "io/channel.h"
#include "net/colo-link.h"
#include "net/colo-turn.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qom/object.h"
#include "trace.h"

static void watch_end(ColoLink *link)
{
    if (link->watch) {
        GSource *source = g_main_context_find_source_by_id(link->context, link->watch);

        if (source) {
            g_source_destroy(source);
        }
        link->watch = 0;
    }
}

static gboolean watch_ready(void *do_not_use, GIOCondition condition, void *opaque)
{
    ColoLink *link = opaque;

    link->watch = 0;
    colo_link_flush(link);
    return G_SOURCE_REMOVE;
}

static void link_turn_ends(void *opaque)
{
    colo_link_flush(opaque);
}

static int link_can_read(void *opaque)
{
    ColoLink *link = opaque;

    return link->ops->may_read ? link->ops->may_read(link->opaque) : COLO_LINK_READ;
}

static void link_read(void *opaque, const uint8_t *bytes, int len)
{
    ColoLink *link = opaque;
    uint32_t bad;

    trace_colo_link_read(link->name, len);
    if (!link->ops->packet) {
        return;
    }
    if (!colo_wire_read(link->reader, bytes, len, link->ops->packet, link->opaque, &bad)) {
        error_report("%s: a packet of impossible length %" PRIu32 " came; the connection is closed", link->name, bad);
        qemu_chr_fe_disconnect(&link->chr);
    }
    if (link->ops->read_done) {
        link->ops->read_done(link->opaque);
    }
}

/* What is written leaves at once, whatever the chardev's `nodelay` says. */
static void link_set_nodelay(ColoLink *link)
{
    Chardev *chr = qemu_chr_fe_get_driver(&link->chr);

    if (object_dynamic_cast(OBJECT(chr), TYPE_CHARDEV_SOCKET) && SOCKET_CHARDEV(chr)->ioc) {
        qio_channel_set_delay(SOCKET_CHARDEV(chr)->ioc, false);
    }
}

static void link_event(void *opaque, QEMUChrEvent event)
{
    ColoLink *link = opaque;
    bool connected = event == CHR_EVENT_OPENED;

    if ((event != CHR_EVENT_OPENED && event != CHR_EVENT_CLOSED) || connected == link->connected) {
        return;
    }
    trace_colo_link_connected(link->name, connected);
    link->connected = connected;
    watch_end(link);
    colo_wire_reader_reset(link->reader);
    colo_outbox_restart(&link->outbox);
    if (link->ops->connected) {
        link->ops->connected(connected, link->opaque);
    }
    if (connected) {
        link_set_nodelay(link);
        colo_link_flush(link);
    }
}

bool colo_link_open(ColoLink *link, Object *owner, const char *property, const char *chardev_id,
                    bool read_vnet, bool write_vnet, Error **errp)
{
    ERRP_GUARD();
    g_autofree char *name = g_strdup_printf("%s '%s': %s", object_get_typename(owner),
                                            object_get_canonical_path_component(owner), property);
    Chardev *chr = qemu_chr_find(chardev_id);

    if (!chr) {
        error_setg(errp, "%s: there is no chardev '%s'; define it first with -chardev or chardev-add",
                   name, chardev_id);
        return false;
    }
    if (object_dynamic_cast(OBJECT(chr), TYPE_CHARDEV_MUX)) {
        error_setg(errp, "%s: chardev '%s' cannot be used, because with mux=on some bytes are commands; "
                   "use one without", name, chardev_id);
        return false;
    }
    if (!qemu_chr_fe_init(&link->chr, chr, errp)) {
        error_prepend(errp, "%s: chardev '%s' serves one user only: ", name, chardev_id);
        return false;
    }
    link->name = g_steal_pointer(&name);
    link->reader = colo_wire_reader_new(read_vnet);
    link->outbox.vnet = write_vnet;
    link->open = true;
    return true;
}

void colo_link_start(ColoLink *link, const ColoLinkOps *ops, void *opaque, GMainContext *context)
{
    link->ops = ops;
    link->opaque = opaque;
    link->context = context;
    link->turn = colo_turn_new(context, link_turn_ends, link);
    qemu_chr_fe_set_handlers(&link->chr, link_can_read, link_read, link_event, NULL, link, context, true);
}

void colo_link_cut(ColoLink *link)
{
    if (link->connected && (colo_wire_reader_is_amid(link->reader) || colo_outbox_is_amid(&link->outbox))) {
        qemu_chr_fe_disconnect(&link->chr);
    }
}

void colo_link_stop(ColoLink *link)
{
    if (link->open) {
        watch_end(link);
        colo_turn_free(link->turn);
        link->turn = NULL;
        qemu_chr_fe_set_handlers(&link->chr, NULL, NULL, NULL, NULL, NULL, NULL, true);
        colo_link_cut(link);
        link->connected = false;
    }
}

void colo_link_close(ColoLink *link)
{
    if (link->open) {
        qemu_chr_fe_deinit(&link->chr, false);
        colo_wire_reader_free(link->reader);
        colo_outbox_clear(&link->outbox);
        g_free(link->name);
        memset(link, 0, sizeof(*link));
    }
}

void colo_link_send(ColoLink *link, const struct iovec *iov, int iovcnt, uint32_t vnet_len)
{
    size_t size = iov_size(iov, iovcnt);

    iov_to_buf(iov, iovcnt, 0, colo_outbox_append(&link->outbox, size, vnet_len), size);
    colo_turn_wanted(link->context);
}

void colo_link_flush(ColoLink *link)
{
    while (link->connected && !link->watch && !colo_outbox_is_empty(&link->outbox)) {
        int len = qemu_chr_fe_write(&link->chr, colo_outbox_bytes(&link->outbox),
                                    MIN(colo_outbox_size(&link->outbox), INT_MAX));

        if (len > 0) {
            colo_outbox_wrote(&link->outbox, len);
        } else if (link->connected) {
            link->watch = qemu_chr_fe_add_watch(&link->chr, G_IO_OUT | G_IO_HUP, watch_ready, link);
            break;
        }
    }
}
