/*
 * The stream on a chardev: packets behind their lengths
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * Every packet is a 4-byte big-endian length, then, on a stream with virtio-net headers, the 4-byte big-endian length of
 * that header, then the packet.  Bytes arrive in any split.  A packet that lies whole in what has
 * arrived is handed on where it lies; only one that is cut by the end of a read is put together, in one buffer of the
 * longest size there is, allocated once.  A length is checked before anything is done with it: no packet is
 * empty, none is longer than QEMU's network layer carries.
 *
 * The mark of an epoch travels as a frame, so that it keeps its place in the stream: from no station to no station (both
 * addresses zero, which no network carries), of the Ethernet type set aside for local experiments (0x88b5, IEEE 802),
 * and with a word of its own, behind which comes the epoch's number.  Whoever writes a stream drops a guest's frame that
 * looks like one.
 */

#include "net/colo/wire.h"

#include <string.h>

#include "net/colo/checksum.h"

#define PACKET_MAX (COLO_FRAME_MAX + COLO_VNET_HDR_MAX)

struct ColoWireReader {
    bool vnet;
    bool ended;             /* by an impossible length */
    uint32_t filled;        /* bytes in @partial */
    uint8_t partial[COLO_WIRE_HEADER_MAX + PACKET_MAX];
};

ColoWireReader *colo_wire_reader_new(bool vnet)
{
    ColoWireReader *reader = g_malloc(sizeof(*reader));

    reader->vnet = vnet;
    colo_wire_reader_reset(reader);
    return reader;
}

void colo_wire_reader_free(ColoWireReader *reader)
{
    g_free(reader);
}

void colo_wire_reader_reset(ColoWireReader *reader)
{
    reader->filled = 0;
    reader->ended = false;
}

bool colo_wire_reader_is_amid(const ColoWireReader *reader)
{
    return reader->filled;
}

/* What is known of a packet from the @len bytes of its beginning. */
typedef struct {
    uint32_t header;        /* bytes before the packet */
    uint32_t size;
    uint32_t vnet_len;
    bool complete;          /* the header is */
    uint32_t bad;           /* an impossible length, if !possible */
    bool possible;
} Beginning;

static Beginning look(const ColoWireReader *reader, const uint8_t *bytes, size_t len)
{
    Beginning b = { .header = reader->vnet ? 8 : 4, .possible = true };

    if (len >= 4) {
        b.size = colo_get_be32(bytes);
        if (b.size == 0 || b.size > COLO_FRAME_MAX + (reader->vnet ? COLO_VNET_HDR_MAX : 0)) {
            b.possible = false;
            b.bad = b.size;
            return b;
        }
    }
    if (reader->vnet && len >= 8) {
        b.vnet_len = colo_get_be32(bytes + 4);
        if (b.vnet_len > COLO_VNET_HDR_MAX || b.vnet_len > b.size) {
            b.possible = false;
            b.bad = b.vnet_len;
            return b;
        }
        if (b.size - b.vnet_len > COLO_FRAME_MAX) {
            b.possible = false;
            b.bad = b.size;
            return b;
        }
    }
    b.complete = len >= b.header;
    return b;
}

static bool end(ColoWireReader *reader, const Beginning *b, uint32_t *bad)
{
    reader->ended = true;
    *bad = b->bad;
    return false;
}

bool colo_wire_read(ColoWireReader *reader, const uint8_t *bytes, size_t len, ColoWirePacket *packet,
                    void *opaque, uint32_t *bad)
{
    Beginning b;

    while (len && !reader->ended) {
        if (!reader->filled) {
            b = look(reader, bytes, len);
            if (!b.possible) {
                return end(reader, &b, bad);
            }
            if (b.complete && len - b.header >= b.size) {
                packet(bytes + b.header, b.size, b.vnet_len, opaque);
                bytes += b.header + b.size;
                len -= b.header + b.size;
                continue;
            }
        }

        /* Put together: first the header, then as much as it says. */
        b = look(reader, reader->partial, reader->filled);
        size_t wanted = b.complete ? b.header + b.size - reader->filled : b.header - reader->filled;
        size_t taken = MIN(wanted, len);

        memcpy(reader->partial + reader->filled, bytes, taken);
        reader->filled += (uint32_t)taken;
        bytes += taken;
        len -= taken;
        b = look(reader, reader->partial, reader->filled);
        if (!b.possible) {
            return end(reader, &b, bad);
        }
        if (b.complete && reader->filled == b.header + b.size) {
            reader->filled = 0;
            packet(reader->partial + b.header, b.size, b.vnet_len, opaque);
        }
    }
    return !reader->ended;
}

size_t colo_wire_header(uint8_t header[COLO_WIRE_HEADER_MAX], bool vnet, uint32_t size, uint32_t vnet_len)
{
    colo_put_be32(header, size);
    if (!vnet) {
        return 4;
    }
    colo_put_be32(header + 4, vnet_len);
    return 8;
}

#define MARK_NUMBER (COLO_EPOCH_MARK_SIZE - 8)      /* where it stands */

void colo_epoch_mark(uint8_t mark[COLO_EPOCH_MARK_SIZE], uint64_t number)
{
    static const char word[] = "COLO epoch";

    memset(mark, 0, COLO_EPOCH_MARK_SIZE);
    colo_put_be16(mark + 12, 0x88b5);
    memcpy(mark + 14, word, sizeof(word));      /* with its end, where the number begins */
    colo_put_be64(mark + MARK_NUMBER, number);
}

bool colo_is_epoch_mark(const uint8_t *frame, size_t size, uint64_t *number)
{
    uint8_t mark[COLO_EPOCH_MARK_SIZE];

    if (size != COLO_EPOCH_MARK_SIZE || frame[12] != 0x88) {
        return false;
    }
    colo_epoch_mark(mark, 0);
    if (memcmp(frame, mark, MARK_NUMBER) != 0) {
        return false;
    }
    if (number) {
        *number = colo_get_be64(frame + MARK_NUMBER);
    }
    return true;
}
