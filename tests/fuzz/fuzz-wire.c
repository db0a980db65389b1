/*
 * Fuzzing wire.c and outbox.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The input is either a stream and a way to cut it up, or a program of what is done to an outbox.  Asserted:
 *
 *  - however a stream is cut, down to single bytes, the reader hands on the packets that a reader of the whole stream
 *    (the model below) finds in it, ends at the same impossible length, knows whether it is amid a packet, and reads
 *    nothing behind its end, nor anything outside of what it is given;
 *  - an outbox holds what has been appended and not been written, no more and no less, whatever is done to it;
 *  - what comes out of it, read back, is what was put in, in order, each packet once; one that was written in part when
 *    the stream began anew is written whole; and what colo_outbox_empty() hands out is the rest;
 *  - a packet is an epoch mark if and only if it is the same to the byte.
 */

#include "fuzz.h"
#include "layout.h"
#include "net/colo/outbox.h"

#include <string.h>

#define FRAME_MAX (68 * 1024u)
#define VNET_MAX 20u
#define BYTES_MAX (4 * 1024)            /* in one execution, but for the last packet: for speed */
#define STREAM_MAX (3 * FRAME_MAX)
#define PACKETS_MAX 64

/* A packet as it lies in a stream. */
typedef struct {
    const uint8_t *bytes;
    uint32_t size;
    uint32_t vnet_len;
} Lying;

/* Packets that are to come, and how many have come. */
typedef struct {
    Lying packets[STREAM_MAX / 5];
    uint32_t count;
    uint32_t seen;
} Expected;

static ColoWireReader *readers[2];      /* without and with virtio-net headers; made once */
static uint8_t stream[STREAM_MAX];
static Expected expected;

static ColoWireReader *reader_for(bool vnet)
{
    if (!readers[vnet]) {
        readers[vnet] = colo_wire_reader_new(vnet);
    }
    colo_wire_reader_reset(readers[vnet]);
    REQUIRE(!colo_wire_reader_is_amid(readers[vnet]), "a reset reader is amid a packet");
    return readers[vnet];
}

static void on_packet(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    Expected *e = opaque;
    const Lying *next = &e->packets[e->seen];

    REQUIRE(e->seen < e->count, "packet %u, of %u bytes, is one too many", e->seen, size);
    REQUIRE(size == next->size && vnet_len == next->vnet_len, "packet %u: %u, %u bytes, not %u, %u", e->seen, size,
            vnet_len, next->size, next->vnet_len);
    REQUIRE(!memcmp(frame, next->bytes, size), "packet %u: other bytes", e->seen);
    e->seen++;
}

/* The model */

typedef enum {
    STREAM_BETWEEN,         /* it ends behind a packet */
    STREAM_AMID,            /* within one */
    STREAM_BAD,             /* with an impossible length */
} StreamEnd;

/* Finds the packets in @bytes; if the stream ends badly, @bad is why, and @at where what shows it ends. */
static StreamEnd read_plainly(bool vnet, const uint8_t *bytes, uint32_t len, uint32_t *bad, uint32_t *at)
{
    uint32_t longest = FRAME_MAX + (vnet ? VNET_MAX : 0);

    expected.count = 0;
    *at = 0;
    while (*at < len) {
        Lying p = { .size = 0 };

        if (len - *at < 4) {
            return STREAM_AMID;
        }
        *bad = p.size = get32(bytes + *at);
        *at += 4;
        if (p.size == 0 || p.size > longest) {
            return STREAM_BAD;
        }
        if (vnet) {
            if (len - *at < 4) {
                return STREAM_AMID;
            }
            p.vnet_len = get32(bytes + *at);
            *at += 4;
            if (p.vnet_len > VNET_MAX || p.vnet_len > p.size) {
                *bad = p.vnet_len;
                return STREAM_BAD;
            }
            if (p.size - p.vnet_len > FRAME_MAX) {
                return STREAM_BAD;
            }
        }
        if (len - *at < p.size) {
            return STREAM_AMID;
        }
        p.bytes = bytes + *at;
        *at += p.size;
        expected.packets[expected.count++] = p;
    }
    return STREAM_BETWEEN;
}

/* Reading */

/* Gives the reader a piece of its own, with nothing before it and nothing behind. */
static bool read_piece(ColoWireReader *reader, const uint8_t *bytes, uint32_t len, uint32_t *bad)
{
    uint8_t *piece = malloc(len);
    bool going;

    memcpy(piece, bytes, len);
    going = colo_wire_read(reader, piece, len, on_packet, &expected, bad);
    free(piece);
    return going;
}

/* @cuts: lengths of pieces, used over and over; 0 stands for all that is left. */
static void check_reading(bool vnet, uint32_t len, const uint8_t *cuts, uint32_t cuts_count)
{
    ColoWireReader *reader = reader_for(vnet);
    uint32_t bad = 0, bad_seen = 0, end, at = 0;
    StreamEnd how = read_plainly(vnet, stream, len, &bad, &end);
    bool going = true;

    expected.seen = 0;
    for (uint32_t i = 0; at < len; i++) {
        uint32_t piece = cuts_count && cuts[i % cuts_count] ? cuts[i % cuts_count] : len - at;

        if (len > 512 && piece < 64) {
            piece *= len > BYTES_MAX ? 512 : 64;
        }
        piece = piece < len - at ? piece : len - at;
        going = read_piece(reader, stream + at, piece, &bad_seen);
        at += piece;
        REQUIRE(going == (how != STREAM_BAD || at < end), "at %u, to end badly at %u", at, end);
        if (!going) {
            break;
        }
    }
    REQUIRE(expected.seen == expected.count, "%u packets, not %u", expected.seen, expected.count);
    if (how == STREAM_BAD) {
        REQUIRE(bad_seen == bad, "an impossible length of %u, not %u", bad_seen, bad);
        REQUIRE(!read_piece(reader, stream, len, &bad_seen), "it goes on behind an impossible length");
    } else {
        REQUIRE(colo_wire_reader_is_amid(reader) == (how == STREAM_AMID), "amid: %d", how);
    }
}

/* The stream as the tape describes it: lengths that are right, or nearly, and bytes as they are. */
static uint32_t make_stream(Tape *tape, bool vnet)
{
    uint32_t len = 0;

    while (!tape_is_over(tape) && len < BYTES_MAX) {
        uint8_t what = tape_byte(tape);
        uint32_t size = what & 0x3f, body;

        if (what >> 6 == 3) {               /* bytes as they are */
            for (; size && !tape_is_over(tape); size--) {
                stream[len++] = tape_byte(tape);
            }
            continue;
        }
        if (what >> 6 == 2) {               /* a long one, or about as long as can be */
            size = size > 60 ? FRAME_MAX + tape_byte(tape) % 32 : size << 6 | tape_byte(tape);
        }
        set32(stream + len, size);
        len += 4;
        if (vnet) {
            uint8_t vnet_len = tape_byte(tape);

            set32(stream + len, vnet_len > 250 ? 0xffffff00u + vnet_len : vnet_len % 32);
            len += 4;
        }
        body = what >> 6 == 0 && size > 40 ? size - 40 : size;      /* now and then it lacks something */
        for (uint32_t i = 0; i < body; i += 16) {
            memset(stream + len + i, (int)(i / 16 + len), 16);
        }
        len += body;
    }
    return len;
}

static void fuzz_reader(Tape *tape, bool vnet)
{
    uint8_t cuts[8];
    uint32_t count = tape_byte(tape) % 9;
    uint32_t len;

    for (uint32_t i = 0; i < count; i++) {
        cuts[i] = tape_byte(tape);
    }
    len = make_stream(tape, vnet);
    check_reading(vnet, len, NULL, 0);
    check_reading(vnet, len, cuts, count);
}

/* Outboxes */

/* What an outbox should hold, and what has been read of what it has written. */
typedef struct {
    ColoOutbox box;
    Lying packets[PACKETS_MAX];
    uint32_t count;
    uint32_t first;         /* the first packet that is not written whole */
    uint32_t amid;          /* bytes of it that are written, its header included */
    uint32_t header;
    ColoWireReader *reader;
    uint32_t more;          /* packets to be appended while it is emptied */
    uint32_t appended;      /* bytes in all */
} Bench;

static const uint8_t *pattern(uint32_t which)
{
    static uint8_t bytes[FRAME_MAX + VNET_MAX + 256];

    if (!bytes[1]) {
        for (uint32_t i = 0; i < sizeof(bytes); i++) {
            bytes[i] = (uint8_t)(i * 7 + i / 256);
        }
    }
    return bytes + which % 256;
}

static void append(Bench *b, uint32_t size, uint32_t vnet_len)
{
    Lying p = { .bytes = pattern(b->count * 37), .size = size, .vnet_len = b->box.vnet ? vnet_len : 0 };

    if (b->count == PACKETS_MAX || b->appended >= BYTES_MAX) {
        return;
    }
    b->appended += size;
    memcpy(colo_outbox_append(&b->box, size, vnet_len), p.bytes, size);
    b->packets[b->count++] = p;
}

static uint32_t outstanding(const Bench *b)
{
    uint32_t sum = 0;

    for (uint32_t i = b->first; i < b->count; i++) {
        sum += b->header + b->packets[i].size;
    }
    return sum - b->amid;
}

static void check_box(const Bench *b)
{
    REQUIRE(colo_outbox_size(&b->box) == outstanding(b), "%zu bytes, not %u", colo_outbox_size(&b->box),
            outstanding(b));
    REQUIRE(colo_outbox_is_empty(&b->box) == !outstanding(b), "%u bytes", outstanding(b));
    REQUIRE(colo_outbox_is_amid(&b->box) == !!b->amid, "%u bytes of a packet", b->amid);
}

/* @len bytes leave, and are read. */
static void write_some(Bench *b, uint32_t len)
{
    uint32_t bad;

    len = len < outstanding(b) ? len : outstanding(b);
    expected.count = expected.seen = 0;
    b->amid += len;
    while (b->first < b->count && b->amid >= b->header + b->packets[b->first].size) {
        expected.packets[expected.count++] = b->packets[b->first];
        b->amid -= b->header + b->packets[b->first].size;
        b->first++;
    }
    if (len) {
        REQUIRE(colo_wire_read(b->reader, colo_outbox_bytes(&b->box), len, on_packet, &expected, &bad), "bad: %u", bad);
    }
    colo_outbox_wrote(&b->box, len);
    REQUIRE(expected.seen == expected.count, "%u packets, not %u", expected.seen, expected.count);
    REQUIRE(colo_wire_reader_is_amid(b->reader) == !!b->amid, "%u", b->amid);
}

static void restart(Bench *b)
{
    colo_outbox_restart(&b->box);
    colo_wire_reader_reset(b->reader);
    b->amid = 0;
}

static void on_emptied(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    Bench *b = opaque;

    on_packet(frame, size, vnet_len, &expected);
    if (b->more) {
        b->more--;
        append(b, size / 2 + 1, 0);
    }
}

static void empty(Bench *b, uint32_t more)
{
    expected.count = expected.seen = 0;
    while (b->first < b->count) {
        expected.packets[expected.count++] = b->packets[b->first++];
    }
    b->amid = 0;
    b->more = more;
    colo_wire_reader_reset(b->reader);
    colo_outbox_empty(&b->box, on_emptied, b);
    REQUIRE(expected.seen == expected.count, "%u packets, not %u", expected.seen, expected.count);
}

static void fuzz_outbox(Tape *tape, bool vnet)
{
    Bench b = { .box = { .vnet = vnet }, .header = vnet ? 8 : 4, .reader = reader_for(vnet) };

    while (!tape_is_over(tape)) {
        uint8_t what = tape_byte(tape);
        uint32_t operand = what & 0x1f;

        switch (what >> 5) {
        case 0:
        case 1:
            append(&b, 1 + operand, operand < VNET_MAX ? operand : 0);
            break;
        case 2:
            append(&b, 1 + (operand << 8 | tape_byte(tape)), operand % VNET_MAX);
            break;
        case 3:
            append(&b, operand < 31 ? 33 + operand : FRAME_MAX, 0);
            break;
        case 4:
            write_some(&b, operand);
            break;
        case 5:
            write_some(&b, operand << 9 | tape_byte(tape));
            break;
        case 6:
            if (operand < 8) {
                restart(&b);
            } else if (operand < 16) {
                empty(&b, operand % 4);
            } else if (operand < 24) {
                write_some(&b, outstanding(&b));
            } else {
                colo_outbox_clear(&b.box);
                colo_wire_reader_reset(b.reader);
                b.first = b.count;
                b.amid = 0;
            }
            break;
        default:
            write_some(&b, outstanding(&b) > operand ? outstanding(&b) - operand : 0);
            break;
        }
        check_box(&b);
        if (b.first == b.count) {
            b.first = b.count = 0;
        }
    }
    restart(&b);
    write_some(&b, outstanding(&b));
    check_box(&b);
    colo_outbox_clear(&b.box);
}

static void check_mark(const Tape *tape)
{
    uint8_t mark[COLO_EPOCH_MARK_SIZE], frame[COLO_EPOCH_MARK_SIZE];
    size_t size = (size_t)(tape->end - tape->at);
    uint64_t number = 0, found;
    bool is_mark;

    REQUIRE(!colo_is_epoch_mark(tape->at, size, NULL) || size == COLO_EPOCH_MARK_SIZE, "%zu bytes", size);
    memcpy(&number, tape->at, MIN(size, sizeof(number)));
    colo_epoch_mark(mark, number);
    memcpy(frame, mark, sizeof(frame));
    REQUIRE(colo_is_epoch_mark(frame, sizeof(frame), &found) && found == number, "the mark itself");
    if (size >= 2) {
        frame[tape->at[0] % sizeof(frame)] ^= tape->at[1];
        is_mark = colo_is_epoch_mark(frame, sizeof(frame), &found);
        REQUIRE(is_mark == (!tape->at[1] || tape->at[0] % sizeof(frame) >= sizeof(frame) - 8), "byte %u", tape->at[0]);
        REQUIRE(!is_mark || (found == number) == !tape->at[1], "the number of another mark");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Tape tape = { .at = data, .end = data + size };
    uint8_t how = tape_byte(&tape);

    check_mark(&tape);
    if (how & 2) {
        fuzz_outbox(&tape, how & 1);
    } else {
        fuzz_reader(&tape, how & 1);
    }
    return 0;
}
