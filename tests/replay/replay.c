/*
 * The replay: two captures through rewriter and comparator
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * Each file is read several times, front to back, and never kept:
 *
 *     1. who is the guest (guest.c);
 *     2. the survey: handshakes of all connections, and the first input that both captures have, to align the clocks;
 *     3. the replay: input to the rewriter; the secondary's output through the rewriter to the comparator;
 *        the primary's to the comparator; checkpoints; what leaves is accounted for;
 *     4. the flows that differ once more, to show where.
 *
 * In the replay there are three sources, merged by time: the primary's input, the primary's output, the secondary's
 * output.  The comparator may refuse one of the outputs for a while (backpressure), and the secondary's waits for the
 * input that it answers (handshake.h); the input never waits.  So something can always be read, unless the comparator
 * is full on both sides and nobody makes a checkpoint; then the replay ends there.  The clock is that of the captures
 * and never goes back: what was refused has come later than its capture says.
 *
 * Without --checkpoint=never a divergence is followed by a pretended checkpoint: what is held leaves, and comparison
 * goes on from there.  The rewriter is not told: the captures come from guests that had none, whose sequence numbers
 * stay their own.
 */

#include "replay.h"

#include <string.h>

#include "net/colo/rewriter.h"

/* Packets of input that are remembered to find one that both captures have. */
#define COMMON_INPUT_MAX 100000

/* A view of a capture that shows one direction only. */
typedef struct {
    Capture *capture;
    Way way;
    bool ended;
} Source;

typedef struct {
    const ReplayOptions *options;
    Replay *replay;
    ColoComparator *comparator;
    ColoRewriter *rewriter;
    Source input;
    Source output[COLO_SIDES];
    int64_t now;
    int64_t checkpoint_at;      /* INT64_MAX: none has been asked for */
    Left leaving;               /* how what is released now is let go */
    pcap_t *released_format;
    pcap_dumper_t *released;
} Run;

/* Flows are found by a hash that nobody can have made a capture for. */
static void draw_secret(uint8_t secret[16])
{
    for (int i = 0; i < 16; i++) {
        secret[i] = (uint8_t)g_random_int();
    }
}

/* The survey */

/* What makes the same input known in both captures, whatever each connection's numbers are. */
static uint64_t input_mark(Account *account, const ColoPacket *p)
{
    struct {
        ColoFlowKey key;
        uint32_t seq;
        uint32_t flags;
        uint64_t payload;
    } mark;

    memset(&mark, 0, sizeof(mark));
    colo_flow_key(&mark.key, p, COLO_TO_GUEST);
    mark.payload = colo_flow_table_hash(account->table, p->data + p->payload, p->payload_len);
    if (p->class == COLO_CLASS_TCP) {
        mark.flags = p->tcp_flags;
        mark.seq = p->tcp_flags & COLO_TCP_SYN ? 0 : p->seq;
    }
    return colo_flow_table_hash(account->table, &mark, sizeof(mark));
}

typedef struct {
    GHashTable *secondary;      /* mark of the secondary's input: its time */
    bool found;
    int64_t offset;
    char *packet;
} Alignment;

static void align(Alignment *a, Account *account, ColoSide side, const ColoPacket *p, int64_t time)
{
    uint64_t mark = input_mark(account, p);
    const int64_t *theirs;

    if (side == COLO_SECONDARY) {
        if (g_hash_table_size(a->secondary) < COMMON_INPUT_MAX && !g_hash_table_contains(a->secondary, &mark)) {
            g_hash_table_insert(a->secondary, g_memdup2(&mark, sizeof(mark)), g_memdup2(&time, sizeof(time)));
        }
        return;
    }
    theirs = a->found ? NULL : g_hash_table_lookup(a->secondary, &mark);
    if (theirs) {
        char text[COLO_FLOW_TEXT];
        ColoFlowKey key;

        colo_flow_key(&key, p, COLO_TO_GUEST);
        a->found = true;
        a->offset = time - *theirs;
        a->packet = g_strdup(colo_flow_key_format(&key, text));
    }
}

static bool survey_side(Replay *replay, const ReplayOptions *options, ColoSide side, Alignment *a, GError **error)
{
    CaptureSummary *summary = &replay->captures[side];
    Capture *capture = capture_open(options->path[side], summary->vnet_len, 0, error);

    if (!capture) {
        return false;
    }
    while (capture_next(capture)) {
        const ColoPacket *p = &capture->packet;
        Way way = guest_way(replay->guest, p);

        if (side == COLO_PRIMARY && capture->packets == 1) {
            replay->begin = capture->time;
        }
        summary->from_guest += way == WAY_FROM_GUEST;
        summary->to_guest += way == WAY_TO_GUEST;
        if (way == WAY_ELSEWHERE || p->class == COLO_CLASS_LOCAL) {
            continue;
        }
        if (way == WAY_TO_GUEST) {
            align(a, replay->account, side, p, capture->time);
        }
        if (p->class == COLO_CLASS_TCP) {
            ColoDirection direction = way == WAY_FROM_GUEST ? COLO_FROM_GUEST : COLO_TO_GUEST;

            handshake_learn(account_flow_of(replay->account, p, direction)->handshakes[side], direction, p);
        }
    }
    summary->packets = capture->packets;
    summary->snapped = capture->snapped;
    summary->unusable = capture->unusable;
    summary->damage = g_strdup(capture->damage);
    capture_free(capture);
    if (!summary->from_guest) {
        char *text = guest_text(replay->guest);

        g_set_error(error, REPLAY_ERROR, 0, "%s: no packets from the guest (%s%s); %s", options->path[side], text,
                    replay->guest_deduced ? ", as the primary's capture has it" : "",
                    summary->to_guest ? "record both directions" : "say with --guest which address it has");
        g_free(text);
        return false;
    }
    return true;
}

static bool survey(Replay *replay, const ReplayOptions *options, GError **error)
{
    Alignment a = { .secondary = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free) };
    bool ok = survey_side(replay, options, COLO_SECONDARY, &a, error) &&
              survey_side(replay, options, COLO_PRIMARY, &a, error);

    replay->offset = options->offset_given ? options->offset : a.offset;
    replay->offset_from = a.packet;
    g_hash_table_destroy(a.secondary);
    return ok;
}

/* Sources */

static void advance(const Replay *replay, Source *source)
{
    do {
        source->ended = !capture_next(source->capture);
    } while (!source->ended && guest_way(replay->guest, &source->capture->packet) != source->way);
}

static bool source_open(Run *run, Source *source, ColoSide side, Way way, GError **error)
{
    Replay *replay = run->replay;

    source->way = way;
    source->capture = capture_open(run->options->path[side], replay->captures[side].vnet_len,
                                   side == COLO_SECONDARY ? replay->offset : 0, error);
    if (source->capture) {
        advance(replay, source);
    }
    return source->capture;
}

/* True if the source's next packet may be dealt with now. */
static bool may_read(const Run *run, const Source *source)
{
    const ColoPacket *p = &source->capture->packet;
    const Flow *flow;

    if (source->ended) {
        return false;
    }
    if (source == &run->input) {
        return true;
    }
    if (source == &run->output[COLO_PRIMARY]) {
        return colo_comparator_may_read(run->comparator, COLO_PRIMARY);
    }
    if (!colo_comparator_may_read(run->comparator, COLO_SECONDARY)) {
        return false;
    }
    if (p->class != COLO_CLASS_TCP || run->input.ended) {
        return true;
    }
    flow = account_flow_of(run->replay->account, p, COLO_FROM_GUEST);
    return reader_may_answer(&flow->reader, flow->handshakes, p);
}

/* The source to read next, or NULL; of two at the same time input first, then the primary. */
static Source *next_source(Run *run)
{
    Source *const sources[] = { &run->input, &run->output[COLO_PRIMARY], &run->output[COLO_SECONDARY] };
    Source *next = NULL;

    for (guint i = 0; i < G_N_ELEMENTS(sources); i++) {
        if (may_read(run, sources[i]) && (!next || sources[i]->capture->time < next->capture->time)) {
            next = sources[i];
        }
    }
    return next;
}

/* The rewriter and the comparator */

static void rewriter_shown_input(Run *run, const ColoPacket *p)
{
    ColoPacket *ready;

    colo_rewriter_look(run->rewriter, COLO_TO_GUEST, p, run->now);
    while ((ready = colo_rewriter_ready(run->rewriter))) {
        colo_packet_free(ready);        /* it would go to a guest; ours is a capture */
    }
}

static void take_input(Run *run, const ColoPacket *p)
{
    if (p->class == COLO_CLASS_TCP) {
        Flow *flow = account_flow_of(run->replay->account, p, COLO_TO_GUEST);

        if (reader_input(&flow->reader, flow->handshakes, p)) {
            rewriter_shown_input(run, p);
        }
    }
}

/* The secondary's @p into the space that the primary and its client share. */
static void rewrite(Run *run, ColoPacket *p)
{
    Flow *flow = account_flow_of(run->replay->account, p, COLO_FROM_GUEST);
    ColoPacket *parked = reader_answered(&flow->reader, flow->handshakes, p);
    int connection = flow->reader.output[COLO_SECONDARY];
    uint32_t shift = handshake_shift(flow->handshakes, connection);
    ColoPacket *ready;

    if (shift && p->tcp_flags & COLO_TCP_ACK) {
        colo_rewrite(p, (ColoRewrite) { .kind = COLO_REWRITE_ACK, .add = shift });
    }
    if (handshake_is_raw(flow->handshakes, connection)) {
        colo_rewrite(p, colo_rewriter_look(run->rewriter, COLO_FROM_GUEST, p, run->now));
        while ((ready = colo_rewriter_ready(run->rewriter))) {
            colo_packet_free(ready);
        }
    }
    if (parked) {
        rewriter_shown_input(run, parked);
        colo_packet_free(parked);
    }
}

static void take_output(Run *run, ColoSide side, const Capture *capture)
{
    const ColoPacket *p = &capture->packet;
    ColoPacket *mapped = NULL;

    if (side == COLO_SECONDARY && p->class == COLO_CLASS_TCP) {
        mapped = colo_packet_hold(p);
        rewrite(run, mapped);
        p = mapped;
    }
    account_sent(run->replay->account, side, p, capture->time);
    colo_comparator_packet(run->comparator, side, p->data, p->size, p->vnet_len, run->now);
    colo_comparator_flush(run->comparator);
    if (mapped) {
        colo_packet_free(mapped);
    }
}

/* The comparator's callbacks */

static void write_released(Run *run, const uint8_t *frame, uint32_t size)
{
    struct pcap_pkthdr header = {
        .ts = { .tv_sec = run->now / SECOND, .tv_usec = run->now % SECOND },    /* ns, as the file's header says */
        .caplen = size,
        .len = size,
    };

    pcap_dump((u_char *)run->released, &header, frame);
}

static void release(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    Run *run = opaque;
    ColoPacket p;

    colo_packet_parse(&p, frame, size, vnet_len);
    account_left(run->replay->account, &p, run->leaving, run->now);
    if (run->released && run->leaving != LEFT_AT_END) {
        write_released(run, frame + p.vnet_len, size - p.vnet_len);
    }
}

static void diverged(ColoReason reason, const ColoFlowKey *key, void *opaque)
{
    Run *run = opaque;

    account_diverged(run->replay->account, reason, key, run->now);
    if (run->options->checkpoints) {
        run->checkpoint_at = run->now + run->options->pause;
    }
}

static const ColoComparatorOps comparator_ops = { .release = release, .diverged = diverged };

/* The replay */

static void checkpoint(Run *run)
{
    run->checkpoint_at = INT64_MAX;
    run->leaving = LEFT_BY_CHECKPOINT;
    colo_comparator_checkpoint(run->comparator, run->now);
    run->leaving = LEFT_COMPARED;
}

/* One step: a packet, a deadline or a checkpoint, whichever comes first.  False if nothing is left to happen. */
static bool step(Run *run)
{
    Source *source = next_source(run);
    int64_t deadline = colo_comparator_deadline(run->comparator);
    int64_t at = MIN(deadline, run->checkpoint_at);

    if (source && source->capture->time <= at) {
        run->now = MAX(run->now, source->capture->time);
        if (source == &run->input) {
            take_input(run, &source->capture->packet);
        } else {
            take_output(run, source == &run->output[COLO_SECONDARY], source->capture);
        }
        advance(run->replay, source);
        return true;
    }
    if (at == INT64_MAX) {
        return false;
    }
    run->now = MAX(run->now, at);
    if (run->checkpoint_at <= run->now) {
        checkpoint(run);
    } else {
        colo_comparator_tick(run->comparator, run->now);
        g_assert(colo_comparator_deadline(run->comparator) > run->now);
    }
    return true;
}

static void count_unread(Run *run)
{
    for (int side = 0; side < COLO_SIDES; side++) {
        for (; !run->output[side].ended; advance(run->replay, &run->output[side])) {
            run->replay->unread[side]++;
        }
    }
}

static bool open_released(Run *run, GError **error)
{
    if (!run->options->released) {
        return true;
    }
    run->released_format = pcap_open_dead_with_tstamp_precision(DLT_EN10MB, 262144, PCAP_TSTAMP_PRECISION_NANO);
    run->released = pcap_dump_open(run->released_format, run->options->released);
    if (!run->released) {
        g_set_error(error, REPLAY_ERROR, 0, "--released: %s", pcap_geterr(run->released_format));
    }
    return run->released;
}

static bool close_released(Run *run, GError **error)
{
    bool ok = true;

    if (run->released) {
        ok = pcap_dump_flush(run->released) == 0;
        pcap_dump_close(run->released);
        if (!ok) {
            g_set_error(error, REPLAY_ERROR, 0, "--released %s: cannot be written", run->options->released);
        }
    }
    if (run->released_format) {
        pcap_close(run->released_format);
    }
    return ok;
}

static bool compare(Replay *replay, const ReplayOptions *options, GError **error)
{
    Run run = {
        .options = options,
        .replay = replay,
        .now = INT64_MIN / 2,
        .checkpoint_at = INT64_MAX,
    };
    ColoComparatorConfig config = { .timeout = options->timeout, .queue_size = options->queue_size };
    uint8_t secret[16];
    bool ok = source_open(&run, &run.input, COLO_PRIMARY, WAY_TO_GUEST, error) &&
              source_open(&run, &run.output[COLO_PRIMARY], COLO_PRIMARY, WAY_FROM_GUEST, error) &&
              source_open(&run, &run.output[COLO_SECONDARY], COLO_SECONDARY, WAY_FROM_GUEST, error) &&
              open_released(&run, error);

    if (ok) {
        draw_secret(secret);
        memcpy(config.secret, secret, sizeof(secret));
        run.comparator = colo_comparator_new(&config, &comparator_ops, &run);
        run.rewriter = colo_rewriter_new(secret);
        colo_comparator_set_comparing(run.comparator, true, run.now);
        while (step(&run)) {
        }
        replay->stats = *colo_comparator_stats(run.comparator);
        run.leaving = LEFT_AT_END;
        colo_comparator_free(run.comparator);
        colo_rewriter_free(run.rewriter);
        count_unread(&run);
    }
    ok = close_released(&run, ok ? error : NULL) && ok;
    capture_free(run.input.capture);
    capture_free(run.output[COLO_PRIMARY].capture);
    capture_free(run.output[COLO_SECONDARY].capture);
    return ok;
}

/* Where they differ */

static bool find_differences(Replay *replay, const ReplayOptions *options, GError **error)
{
    Run run = { .options = options, .replay = replay };
    bool wanted = false;
    bool ok;

    for (guint i = 0; i < replay->account->flows->len; i++) {
        Flow *flow = replay->account->flows->pdata[i];

        if (flow_verdict(flow) != VERDICT_AGREES) {
            flow->difference = difference_new(!(flow->flow.key.tag & COLO_KEY_STREAM),
                                              flow->handshakes[COLO_PRIMARY]->len ? (int)flow->diverged_connection
                                                                                  : -1);
            wanted = true;
        }
    }
    if (!wanted) {
        return true;
    }
    ok = source_open(&run, &run.output[COLO_PRIMARY], COLO_PRIMARY, WAY_FROM_GUEST, error) &&
         source_open(&run, &run.output[COLO_SECONDARY], COLO_SECONDARY, WAY_FROM_GUEST, error);
    while (ok && !(run.output[COLO_PRIMARY].ended && run.output[COLO_SECONDARY].ended)) {
        const Source *p = &run.output[COLO_PRIMARY];
        const Source *s = &run.output[COLO_SECONDARY];
        ColoSide side = p->ended || (!s->ended && s->capture->time < p->capture->time);
        Capture *capture = run.output[side].capture;

        if (capture->packet.class != COLO_CLASS_LOCAL) {
            Flow *flow = account_flow_of(replay->account, &capture->packet, COLO_FROM_GUEST);

            if (flow->difference) {
                difference_packet(flow->difference, side, flow->handshakes, &capture->packet, capture->time);
            }
        }
        advance(replay, &run.output[side]);
    }
    capture_free(run.output[COLO_PRIMARY].capture);
    capture_free(run.output[COLO_SECONDARY].capture);
    return ok;
}

Replay *replay_run(const ReplayOptions *options, Guest *guest, GError **error)
{
    Replay *replay = g_new0(Replay, 1);
    uint8_t secret[16];
    bool ok = true;

    draw_secret(secret);
    replay->guest = guest;
    replay->account = account_new(secret);
    for (int side = 0; ok && side < COLO_SIDES; side++) {
        ok = capture_guess_vnet_len(options->path[side], &replay->captures[side].vnet_len, error);
    }
    if (ok && !guest->addresses->len) {
        replay->guest_deduced = true;
        ok = guest_deduce(guest, options->path[COLO_PRIMARY], replay->captures[COLO_PRIMARY].vnet_len, secret, error);
    }
    ok = ok && survey(replay, options, error) && compare(replay, options, error) &&
         find_differences(replay, options, error);
    if (!ok) {
        replay_free(replay);
        return NULL;
    }
    return replay;
}

void replay_free(Replay *replay)
{
    if (replay) {
        for (int side = 0; side < COLO_SIDES; side++) {
            g_free(replay->captures[side].damage);
        }
        g_free(replay->offset_from);
        account_free(replay->account);
        g_free(replay);
    }
}
