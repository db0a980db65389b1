/*
 * Small spaces, whole
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * A stream of a few units, the last of them a FIN, is cut in every way on each side, and the segments of both come to
 * the comparator in every order.  Into each of these courses one more thing is put, at every moment: nothing; a
 * checkpoint, after which the secondary goes on from where the primary is; a repetition, by either side, of any stretch
 * it has sent.
 *
 * The oracle: a unit leaves when both have sent it, or a checkpoint came after the primary had sent it; where
 * acknowledgements stand still, at once; where they grow with the stream, in the end.  Nothing leaves twice but what
 * was sent twice, nothing out of order, and in the end all has left, without a question.  The secondary has less room
 * than the primary: no window goes beyond what it has told, or the primary had before the checkpoint, and none is
 * narrower than its own.
 */

#include "enumerate.h"

#include <stdio.h>
#include <string.h>

#include "net/colo/comparator.h"
#include "segment.h"

enum {
    CLIENT_ISN = 1000,
    PRIMARY_WINDOW = 10,
    SECONDARY_WINDOW = 7,
    PORTS = 50000,
};

typedef enum {
    EVENT_NONE,
    EVENT_CHECKPOINT,
    EVENT_PRIMARY_REPEATS,
    EVENT_SECONDARY_REPEATS,
} Event;

/* One course of events. */
typedef struct {
    int units;              /* of the stream, FIN included */
    uint32_t cuts[2];       /* bit i: a segment ends behind unit i */
    uint32_t order;         /* bit: whose turn it is, the primary's if set */
    bool acks_grow;
    Event event;
    int moment;             /* after so many segments */
    int from, to;           /* what is repeated */
} Course;

typedef struct {
    const Course *course;
    ColoComparator *comparator;
    Connection c;
    uint32_t base;          /* sequence number of unit 0 */
    int sent[COLO_SIDES];
    int settled;            /* by the checkpoint: units */
    int edge;               /* up to where the client may send */
    int left;               /* units that have left */
    int repeated;           /* units that may leave once more */
    bool settling;          /* the checkpoint is being told of */
    const char *wrong;
} Bench;

static const uint8_t text[] = "abcdefgh";

static void complain(Bench *b, const char *why)
{
    b->wrong = b->wrong ? b->wrong : why;
}

static void on_release(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    Bench *b = *(Bench **)opaque;
    const Course *course;
    const char *wrong;
    Reading r;
    int from, units;

    if (!b) {
        return;
    }
    course = b->course;
    wrong = frame_read(&r, frame, size, vnet_len);
    if (wrong) {
        complain(b, wrong);
        return;
    }
    from = (int)(r.tcp.seq - b->base);
    units = (int)r.len + !!(r.tcp.flags & FIN);
    if (from < 0 || units < 1 || from + units > course->units || memcmp(r.bytes, text + from, r.len) != 0) {
        complain(b, "something else has left than was sent");
    } else if (!!(r.tcp.flags & FIN) != (from + units == course->units)) {
        complain(b, "the FIN is not where it was");
    } else if (from > b->left) {
        complain(b, "something has left too early: out of order");
    } else if (from + units > MAX(b->sent[COLO_SECONDARY], b->settled)) {
        complain(b, "something has left that the secondary has not sent");
    } else if (course->acks_grow && (int)(r.tcp.ack - CLIENT_ISN) > MAX(b->sent[COLO_SECONDARY], b->settled)) {
        complain(b, "an acknowledgement has left that the secondary has not made");
    } else if (!b->settling && (int)(r.tcp.ack - CLIENT_ISN) + r.tcp.window > b->edge) {
        complain(b, "the client may send what the secondary has no room for");
    } else if (r.tcp.window < SECONDARY_WINDOW) {
        complain(b, "a window has been made narrower than either is");
    }
    b->repeated -= MAX(0, MIN(from + units, b->left) - from);
    b->left = MAX(b->left, from + units);
    if (b->repeated < 0) {
        complain(b, "something has left more often than it was sent");
    }
}

static void on_diverged(ColoReason reason, const ColoFlowKey *flow, void *opaque)
{
    Bench *b = *(Bench **)opaque;

    (void)reason;
    (void)flow;
    complain(b, "a checkpoint is asked for");
}

static void give(Bench *b, ColoSide side, int from, int to)
{
    Segment s = {
        .seq = b->base + (uint32_t)from,
        .ack = CLIENT_ISN + (b->course->acks_grow ? (uint32_t)MAX(to, b->sent[side]) : 0),
        .flags = ACK,
        .window = side == COLO_PRIMARY ? PRIMARY_WINDOW : SECONDARY_WINDOW,
        .scale = -1,
        .payload = text + from,
        .len = (uint32_t)(to - from),
    };
    Parcel *p;

    if (to == b->course->units) {
        s.flags |= FIN;
        s.len--;
    }
    p = parcel_tcp(&b->c, false, &s, (Build) { .ttl = 64 });
    b->sent[side] = MAX(b->sent[side], to);
    if (side == COLO_SECONDARY) {
        b->edge = MAX(b->edge, (int)(s.ack - CLIENT_ISN) + s.window);
    }
    colo_comparator_packet(b->comparator, side, p->data, p->size, 0, 1);
    colo_comparator_flush(b->comparator);
    parcel_free(p);
}

/* The side's next segment; false if it has none. */
static bool give_next(Bench *b, ColoSide side)
{
    int to = b->sent[side] + 1;

    if (b->sent[side] == b->course->units) {
        return false;
    }
    while (to < b->course->units && !(b->course->cuts[side] >> (to - 1) & 1)) {
        to++;
    }
    give(b, side, b->sent[side], to);
    return true;
}

static void check_progress(Bench *b)
{
    int may_leave = MAX(b->settled, MIN(b->sent[COLO_PRIMARY], b->sent[COLO_SECONDARY]));

    if (!b->course->acks_grow && b->left != may_leave) {
        complain(b, "something is held that might leave");
    }
}

static void happen(Bench *b)
{
    const Course *course = b->course;

    switch (course->event) {
    case EVENT_NONE:
        break;
    case EVENT_CHECKPOINT:
        b->settled = b->sent[COLO_SECONDARY] = b->sent[COLO_PRIMARY];
        b->edge = b->settled ? (course->acks_grow ? b->settled : 0) + PRIMARY_WINDOW : 0;
        b->settling = true;
        colo_comparator_checkpoint(b->comparator, 1);
        b->settling = false;
        if (b->left != b->settled) {
            complain(b, "something is held after a checkpoint");
        }
        break;
    case EVENT_PRIMARY_REPEATS:
        b->repeated = course->to - course->from;
        give(b, COLO_PRIMARY, course->from, course->to);
        break;
    case EVENT_SECONDARY_REPEATS:
        give(b, COLO_SECONDARY, course->from, course->to);
        break;
    }
}

static void describe(const Bench *b)
{
    static const char *const events[] = { "nothing", "a checkpoint", "the primary repeats", "the secondary repeats" };
    const Course *c = b->course;

    printf("sim: enumeration FAILED: %s\n", b->wrong);
    printf("%d units, cut behind bits %x (primary) and %x (secondary), turns %x, acknowledgements %s, unit 0 is "
           "sequence number %u; after %d segments: %s, %d to %d\n",
           c->units, c->cuts[0], c->cuts[1], c->order, c->acks_grow ? "grow" : "stand still", b->base, c->moment,
           events[c->event], c->from, c->to);
}

static ColoComparator *comparator_new(Bench **bench)
{
    static const ColoComparatorOps ops = { .release = on_release, .diverged = on_diverged };
    ColoComparatorConfig config = { .timeout = SECOND, .queue_size = 1024, .secret = "of no importance" };
    ColoComparator *c = colo_comparator_new(&config, &ops, bench);

    colo_comparator_set_comparing(c, true, 1);
    return c;
}

/* Runs the course; false if it goes wrong, or (without a word) if it is none: nothing to be repeated yet. */
static bool run(const Course *course, uint64_t *count)
{
    static ColoComparator *comparator;
    static Bench *current;
    Bench b = { .course = course };
    int steps = 0;

    /* Each course has a flow of its own, and the comparator no end of them. */
    if (*count % PORTS == 0) {
        current = NULL;
        colo_comparator_free(comparator);
        comparator = comparator_new(&current);
    }
    current = &b;
    b.comparator = comparator;
    b.base = 0u - (uint32_t)(*count % (uint64_t)(course->units + 2));   /* the wrap wanders through the stream */
    b.c = (Connection) { .peer_host = 1, .guest_port = 80, .peer_port = (uint16_t)(1 + *count % PORTS) };
    b.c.mss[GUEST] = b.c.mss[CLIENT] = 1460;
    ++*count;

    if (!course->moment) {
        happen(&b);
    }
    for (uint32_t turns = course->order; !b.wrong; turns >>= 1) {
        bool given = give_next(&b, turns & 1 ? COLO_PRIMARY : COLO_SECONDARY);

        check_progress(&b);
        steps++;
        if (steps == course->moment) {
            happen(&b);
            check_progress(&b);
        }
        if (!given && !give_next(&b, turns & 1 ? COLO_SECONDARY : COLO_PRIMARY)) {
            break;
        }
    }
    if (!b.wrong && b.left != course->units) {
        complain(&b, "not everything has left");
    }
    if (!b.wrong && b.repeated) {
        complain(&b, "a repetition has not left");
    }
    if (b.wrong) {
        describe(&b);
    }
    current = NULL;
    return !b.wrong;
}

static int segments(uint32_t cuts)
{
    return 1 + __builtin_popcount(cuts);
}

/* How far @side has come after @moment segments. */
static int sent_after(const Course *course, ColoSide side, int moment)
{
    int wanted = __builtin_popcount((side == COLO_PRIMARY ? course->order : ~course->order) & ((1u << moment) - 1));
    int to = 0;

    for (; wanted > 0; wanted--) {
        to++;
        while (to < course->units && !(course->cuts[side] >> (to - 1) & 1)) {
            to++;
        }
    }
    return to;
}

static bool repeat_everywhere(Course *course, int total, uint64_t *count)
{
    for (ColoSide side = COLO_PRIMARY; side < COLO_SIDES; side++) {
        course->event = side == COLO_PRIMARY ? EVENT_PRIMARY_REPEATS : EVENT_SECONDARY_REPEATS;
        for (course->moment = 1; course->moment <= total; course->moment++) {
            int sent = sent_after(course, side, course->moment);

            for (course->from = 0; course->from < sent; course->from++) {
                for (course->to = course->from + 1; course->to <= sent; course->to++) {
                    if (!run(course, count)) {
                        return false;
                    }
                }
            }
        }
    }
    return true;
}

/* Every cut of both sides in every order, with @event at every moment. */
static bool every_course(int units, Event event, uint64_t *count)
{
    Course course = { .units = units };

    for (course.cuts[0] = 0; course.cuts[0] < 1u << (units - 1); course.cuts[0]++) {
        for (course.cuts[1] = 0; course.cuts[1] < 1u << (units - 1); course.cuts[1]++) {
            int ours = segments(course.cuts[0]);
            int total = ours + segments(course.cuts[1]);

            for (course.order = 0; course.order < 1u << total; course.order++) {
                if (__builtin_popcount(course.order) != ours) {
                    continue;
                }
                for (int grow = 0; grow < 2; grow++) {
                    course.acks_grow = grow;
                    course.event = event;
                    if (event == EVENT_PRIMARY_REPEATS) {
                        if (!repeat_everywhere(&course, total, count)) {
                            return false;
                        }
                        continue;
                    }
                    for (course.moment = 0; course.moment <= (event == EVENT_NONE ? 0 : total); course.moment++) {
                        if (!run(&course, count)) {
                            return false;
                        }
                    }
                }
            }
        }
    }
    return true;
}

bool enumerate_all(void)
{
    static const struct {
        const char *what;
        Event event;
        int units;          /* at most */
    } spaces[] = {
        { "plain", EVENT_NONE, 6 },
        { "with a checkpoint", EVENT_CHECKPOINT, 5 },
        { "with a repetition", EVENT_PRIMARY_REPEATS, 4 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(spaces); i++) {
        uint64_t count = 0;

        for (int units = 1; units <= spaces[i].units; units++) {
            if (!every_course(units, spaces[i].event, &count)) {
                return false;
            }
        }
        printf("sim: every course of a stream of up to %d units, %s: %" G_GUINT64_FORMAT " runs\n", spaces[i].units,
               spaces[i].what, count);
        fflush(stdout);
    }
    return true;
}
