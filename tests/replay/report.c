/*
 * The report: what a replay has shown, for people and for programs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "report.h"

#include <stdio.h>
#include <string.h>

static const char *const side_names[] = { "primary", "secondary" };
G_STATIC_ASSERT(G_N_ELEMENTS(side_names) == COLO_SIDES);

#define FLOW_TEXT (COLO_FLOW_TEXT + 16)

static const char *flow_text(const Flow *flow, char text[FLOW_TEXT])
{
    uint16_t vlan = flow->flow.key.tag & 0xfff;

    colo_flow_key_format(&flow->flow.key, text);
    if (vlan) {
        g_snprintf(text + strlen(text), (gulong)(FLOW_TEXT - strlen(text)), " vlan %u", vlan);
    }
    return text;
}

/* A flow of which the guest sent nothing is no business of the comparator's. */
static bool is_told(const Flow *flow)
{
    return flow->sent[COLO_PRIMARY].packets || flow->sent[COLO_SECONDARY].packets;
}

static void count_verdicts(const Replay *replay, guint counts[VERDICTS])
{
    memset(counts, 0, VERDICTS * sizeof(counts[0]));
    for (guint i = 0; i < replay->account->flows->len; i++) {
        const Flow *flow = replay->account->flows->pdata[i];

        counts[flow_verdict(flow)] += is_told(flow);
    }
}

static bool is_unread(const Replay *replay)
{
    return replay->unread[COLO_PRIMARY] || replay->unread[COLO_SECONDARY];
}

bool report_all_agree(const Replay *replay)
{
    guint counts[VERDICTS];

    count_verdicts(replay, counts);
    return !counts[VERDICT_DIFFERS] && !counts[VERDICT_UNSETTLED] && !is_unread(replay);
}

static uint64_t count_left(const Replay *replay, Left how)
{
    uint64_t count = 0;

    for (guint i = 0; i < replay->account->flows->len; i++) {
        count += ((const Flow *)replay->account->flows->pdata[i])->left[how];
    }
    return count;
}

/* When it differed, in seconds: the comparator's word if there is one.  False if no moment can be named. */
static bool difference_time(const Replay *replay, const Flow *flow, const DifferenceReport *r, double *seconds)
{
    *seconds = (double)((flow->diverged ? flow->diverged_at : r->time) - replay->begin) / SECOND;
    return flow->diverged || r->time_set;
}

static double to_ms(int64_t ns)
{
    return (double)ns / MS;
}

/* Text */

static void print_warnings(const Replay *replay, const ReplayOptions *options)
{
    for (int side = 0; side < COLO_SIDES; side++) {
        const CaptureSummary *c = &replay->captures[side];

        if (c->damage) {
            printf("%s: ends amid a packet or is damaged (%s): only what comes before it is used\n",
                   options->path[side], c->damage);
        }
        if (c->snapped) {
            printf("%s: %" G_GUINT64_FORMAT " packets were recorded in part; what is missing cannot be compared: "
                   "record again with the whole length (tcpdump -s 0, filter-dump maxlen=65536)\n",
                   options->path[side], c->snapped);
        }
        if (c->unusable) {
            printf("%s: %" G_GUINT64_FORMAT " packets left out: too short or too long for a frame\n",
                   options->path[side], c->unusable);
        }
        if (replay->unread[side]) {
            printf("%s: %" G_GUINT64_FORMAT " packets of the guest not looked at: the comparator was full, and "
                   "there was no checkpoint\n", options->path[side], replay->unread[side]);
        }
    }
}

static void print_head(const Replay *replay, const ReplayOptions *options)
{
    char *guest = guest_text(replay->guest);

    for (int side = 0; side < COLO_SIDES; side++) {
        const CaptureSummary *c = &replay->captures[side];

        printf("%-10s %s: %" G_GUINT64_FORMAT " packets, %" G_GUINT64_FORMAT " from the guest, %" G_GUINT64_FORMAT
               " to it", side_names[side], options->path[side], c->packets, c->from_guest, c->to_guest);
        if (c->vnet_len) {
            printf("; each behind a virtio-net header of %u bytes", c->vnet_len);
        }
        putchar('\n');
    }
    printf("guest      %s%s\n", guest, replay->guest_deduced ? " (deduced; --guest says otherwise)" : "");
    if (options->offset_given) {
        printf("clocks     %+.6f s added to the secondary's, as told\n", (double)replay->offset / SECOND);
    } else if (replay->offset_from) {
        printf("clocks     %+.6f s added to the secondary's: both have the same input in %s\n",
               (double)replay->offset / SECOND, replay->offset_from);
    } else {
        printf("clocks     taken as they are: no input is in both captures (--offset says otherwise)\n");
    }
    print_warnings(replay, options);
    g_free(guest);
}

static int flow_column(const Replay *replay)
{
    int width = 4;

    for (guint i = 0; i < replay->account->flows->len; i++) {
        char text[FLOW_TEXT];

        width = MAX(width, (int)strlen(flow_text(replay->account->flows->pdata[i], text)));
    }
    return width;
}

static void print_table(const Replay *replay)
{
    int width = flow_column(replay);

    printf("\n%-*s  %19s  %19s  %15s  %25s\n", width, "", "primary", "secondary", "confirmed", "held");
    printf("%-*s  %8s %10s  %8s %10s  %10s %4s  %7s %8s %8s  %s\n", width, "flow", "packets", "bytes", "packets",
           "bytes", "bytes", "", "packets", "p50 ms", "max ms", "verdict");
    for (guint i = 0; i < replay->account->flows->len; i++) {
        const Flow *flow = replay->account->flows->pdata[i];
        uint64_t bytes = flow_bytes(flow);
        char text[FLOW_TEXT];

        if (!is_told(flow)) {
            continue;
        }
        printf("%-*s  %8" G_GUINT64_FORMAT " %10" G_GUINT64_FORMAT "  %8" G_GUINT64_FORMAT " %10" G_GUINT64_FORMAT
               "  %10" G_GUINT64_FORMAT " %3.0f%%  %7" G_GUINT64_FORMAT " %8.3f %8.3f  %s", width,
               flow_text(flow, text), flow->sent[COLO_PRIMARY].packets, flow->sent[COLO_PRIMARY].bytes,
               flow->sent[COLO_SECONDARY].packets, flow->sent[COLO_SECONDARY].bytes, flow_confirmed(flow),
               bytes ? 100.0 * (double)flow_confirmed(flow) / (double)bytes : 100.0, flow->held.count,
               to_ms(durations_median(&flow->held)), to_ms(flow->held.max), verdict_name(flow_verdict(flow)));
        if (flow->diverged) {
            printf(": %s", colo_reason_name(flow->reason));
        }
        putchar('\n');
    }
}

static void print_bytes(const DifferenceReport *r, ColoSide side)
{
    for (uint32_t line = 0; line < r->len[side] || !line; line += 16) {
        printf("    %-9s %8" G_GUINT64_FORMAT " ", line ? "" : side_names[side], r->shown_from + line);
        for (uint32_t i = line; i < line + 16; i++) {
            if (i < r->len[side]) {
                printf("%c%02x", r->shown_from + i == r->offset ? '>' : ' ', r->bytes[side][i]);
            } else {
                printf("   ");
            }
        }
        printf("  ");
        for (uint32_t i = line; i < line + 16 && i < r->len[side]; i++) {
            putchar(g_ascii_isprint(r->bytes[side][i]) ? r->bytes[side][i] : '.');
        }
        putchar('\n');
    }
}

static void print_where(const DifferenceReport *r)
{
    ColoSide side = r->on[COLO_PRIMARY] ? COLO_PRIMARY : COLO_SECONDARY;

    switch (r->kind) {
    case DIFFERENCE_NONE:
        printf("no difference in what was sent: the secondary was late\n");
        return;
    case DIFFERENCE_OPTIONS:
        printf("first differs in the options of the SYN\n");
        break;
    case DIFFERENCE_BYTES:
        if (r->datagrams) {
            printf("first differs in datagram %" G_GUINT64_FORMAT ", at its byte %" G_GUINT64_FORMAT "\n", r->number,
                   r->offset);
        } else {
            printf("first differs at stream offset %" G_GUINT64_FORMAT "\n", r->offset);
        }
        break;
    case DIFFERENCE_END:
        printf("first differs at stream offset %" G_GUINT64_FORMAT
               ": the %s ends its stream there, the other goes on\n",
               r->offset, side_names[side]);
        break;
    case DIFFERENCE_MISSING:
        if (r->datagrams) {
            printf("datagram %" G_GUINT64_FORMAT " of the primary was not sent by the secondary\n", r->number);
        } else {
            printf("the same up to stream offset %" G_GUINT64_FORMAT
                   ", from where on the secondary's capture has nothing\n",
                   r->offset);
        }
        break;
    case DIFFERENCE_RESET:
        printf("the same bytes, but only the %s resets the connection\n", side_names[side]);
        return;
    case DIFFERENCE_ACK:
        printf("the same bytes, but the primary acknowledges %" G_GUINT64_FORMAT " of the client's and the secondary %"
               G_GUINT64_FORMAT "\n", r->reach[COLO_PRIMARY], r->reach[COLO_SECONDARY]);
        return;
    case DIFFERENCE_UNKNOWN:
        printf("where it differs is not known: one side is too far ahead of the other to be looked at\n");
        return;
    case DIFFERENCES:
        break;
    }
    print_bytes(r, COLO_PRIMARY);
    print_bytes(r, COLO_SECONDARY);
}

static void print_differences(const Replay *replay)
{
    for (guint i = 0; i < replay->account->flows->len; i++) {
        const Flow *flow = replay->account->flows->pdata[i];
        char text[FLOW_TEXT];
        DifferenceReport r;
        double seconds;

        if (flow_verdict(flow) != VERDICT_DIFFERS) {
            continue;
        }
        r = difference_report(flow->difference);
        printf("\n%s: %s", flow_text(flow, text),
               flow->diverged ? colo_reason_name(flow->reason) : "not asked for");
        if (difference_time(replay, flow, &r, &seconds)) {
            printf(", %.6f s after the beginning", seconds);
        }
        if (flow->divergences > 1) {
            printf(" (and %u times more)", flow->divergences - 1);
        }
        printf("\n  ");
        print_where(&r);
    }
}

static void print_summary(const Replay *replay, const ReplayOptions *options)
{
    const ColoComparatorStats *stats = &replay->stats;
    guint counts[VERDICTS];
    uint64_t asked = 0;

    count_verdicts(replay, counts);
    printf("\ncheckpoints");
    for (int reason = 0; reason < COLO_REASONS; reason++) {
        asked += stats->diverged[reason];
        if (stats->diverged[reason]) {
            printf(" %s %" G_GUINT64_FORMAT, colo_reason_name(reason), stats->diverged[reason]);
        }
    }
    printf("%s\n", !asked ? " none would have been asked for"
                   : options->checkpoints ? " would have been asked for" : " would have been asked for; none was made");
    printf("packets    %" G_GUINT64_FORMAT " of the primary's left when the secondary had sent the same, %"
           G_GUINT64_FORMAT " by a checkpoint, %" G_GUINT64_FORMAT " never; at most %u held at a time\n",
           count_left(replay, LEFT_COMPARED), count_left(replay, LEFT_BY_CHECKPOINT),
           count_left(replay, LEFT_AT_END) + replay->unread[COLO_PRIMARY], stats->held_max);
    if (replay->account->local[COLO_PRIMARY] || replay->account->local[COLO_SECONDARY]) {
        printf("           %" G_GUINT64_FORMAT " and %" G_GUINT64_FORMAT " more are not compared (ARP and the like)\n",
               replay->account->local[COLO_PRIMARY], replay->account->local[COLO_SECONDARY]);
    }
    printf("flows      %u agree, %u differ, %u unsettled\n", counts[VERDICT_AGREES], counts[VERDICT_DIFFERS],
           counts[VERDICT_UNSETTLED]);
}

void report_text(const Replay *replay, const ReplayOptions *options)
{
    print_head(replay, options);
    print_table(replay);
    print_differences(replay);
    print_summary(replay, options);
}

/* JSON (RFC 8259) */

static void json_string(const char *text)
{
    putchar('"');
    for (const char *c = text; *c; c++) {
        if (*c == '"' || *c == '\\') {
            printf("\\%c", *c);
        } else if ((unsigned char)*c < 0x20) {
            printf("\\u%04x", *c);
        } else {
            putchar(*c);
        }
    }
    putchar('"');
}

/* A file's name need not be UTF-8. */
static void json_path(const char *path)
{
    char *text = g_utf8_make_valid(path, -1);

    json_string(text);
    g_free(text);
}

static void json_member(const char *name, uint64_t value)
{
    printf(", \"%s\": %" G_GUINT64_FORMAT, name, value);
}

static void json_text_member(const char *name, const char *value)
{
    printf(", \"%s\": ", name);
    if (value) {
        json_path(value);
    } else {
        printf("null");
    }
}

static void json_capture(const Replay *replay, const ReplayOptions *options, ColoSide side)
{
    const CaptureSummary *c = &replay->captures[side];

    printf("  \"%s\": {\"file\": ", side_names[side]);
    json_path(options->path[side]);
    json_member("packets", c->packets);
    json_member("from_guest", c->from_guest);
    json_member("to_guest", c->to_guest);
    json_member("recorded_in_part", c->snapped);
    json_member("unusable", c->unusable);
    json_member("not_compared", replay->account->local[side]);
    json_member("unread", replay->unread[side]);
    json_member("vnet_header", c->vnet_len);
    json_text_member("damage", c->damage);
    printf("},\n");
}

static void json_difference(const Replay *replay, const Flow *flow)
{
    DifferenceReport r = difference_report(flow->difference);
    double seconds;

    printf(", \"difference\": {\"kind\": \"%s\", \"unit\": \"%s\", \"offset\": %" G_GUINT64_FORMAT,
           difference_name(r.kind), r.datagrams ? "datagram" : "stream", r.offset);
    if (r.datagrams) {
        json_member("datagram", r.number);
    }
    if (difference_time(replay, flow, &r, &seconds)) {
        printf(", \"seconds\": %.9f", seconds);
    }
    json_member("shown_from", r.shown_from);
    for (int side = 0; side < COLO_SIDES; side++) {
        printf(", \"%s\": \"", side_names[side]);
        for (uint32_t i = 0; i < r.len[side]; i++) {
            printf("%02x", r.bytes[side][i]);
        }
        putchar('"');
    }
    putchar('}');
}

static void json_flow(const Replay *replay, const Flow *flow)
{
    char text[FLOW_TEXT];

    printf("    {\"flow\": ");
    json_string(flow_text(flow, text));
    json_text_member("verdict", verdict_name(flow_verdict(flow)));
    for (int side = 0; side < COLO_SIDES; side++) {
        printf(", \"%s\": {\"packets\": %" G_GUINT64_FORMAT ", \"bytes\": %" G_GUINT64_FORMAT "}", side_names[side],
               flow->sent[side].packets, flow->sent[side].bytes);
    }
    json_member("bytes", flow_bytes(flow));
    json_member("confirmed", flow_confirmed(flow));
    printf(", \"left\": {\"compared\": %" G_GUINT64_FORMAT ", \"checkpoint\": %" G_GUINT64_FORMAT ", \"never\": %"
           G_GUINT64_FORMAT "}", flow->left[LEFT_COMPARED], flow->left[LEFT_BY_CHECKPOINT], flow->left[LEFT_AT_END]);
    printf(", \"held\": {\"packets\": %" G_GUINT64_FORMAT ", \"p50_ms\": %.3f, \"max_ms\": %.3f}", flow->held.count,
           to_ms(durations_median(&flow->held)), to_ms(flow->held.max));
    json_text_member("reason", flow->diverged ? colo_reason_name(flow->reason) : NULL);
    json_member("divergences", flow->divergences);
    if (flow_verdict(flow) == VERDICT_DIFFERS) {
        json_difference(replay, flow);
    }
    putchar('}');
}

void report_json(const Replay *replay, const ReplayOptions *options)
{
    char *guest = guest_text(replay->guest);
    const char *separator = "";
    guint counts[VERDICTS];

    count_verdicts(replay, counts);
    printf("{\n");
    json_capture(replay, options, COLO_PRIMARY);
    json_capture(replay, options, COLO_SECONDARY);
    printf("  \"guest\": ");
    json_string(guest);
    printf(",\n  \"guest_deduced\": %s", replay->guest_deduced ? "true" : "false");
    printf(",\n  \"offset\": %.9f", (double)replay->offset / SECOND);
    json_text_member("offset_from", options->offset_given ? NULL : replay->offset_from);
    printf(",\n  \"flows\": [");
    for (guint i = 0; i < replay->account->flows->len; i++) {
        const Flow *flow = replay->account->flows->pdata[i];

        if (is_told(flow)) {
            printf("%s\n", separator);
            separator = ",";
            json_flow(replay, flow);
        }
    }
    printf("\n  ],\n  \"checkpoints\": {");
    for (int reason = 0; reason < COLO_REASONS; reason++) {
        printf("%s\"%s\": %" G_GUINT64_FORMAT, reason ? ", " : "", colo_reason_name(reason),
               replay->stats.diverged[reason]);
    }
    printf("},\n  \"left\": {\"compared\": %" G_GUINT64_FORMAT ", \"checkpoint\": %" G_GUINT64_FORMAT ", \"never\": %"
           G_GUINT64_FORMAT "},\n", count_left(replay, LEFT_COMPARED), count_left(replay, LEFT_BY_CHECKPOINT),
           count_left(replay, LEFT_AT_END) + replay->unread[COLO_PRIMARY]);
    printf("  \"released\": %" G_GUINT64_FORMAT ",\n", replay->account->released);
    printf("  \"held_max\": %u,\n", replay->stats.held_max);
    printf("  \"verdicts\": {\"agrees\": %u, \"differs\": %u, \"unsettled\": %u}\n}\n", counts[VERDICT_AGREES],
           counts[VERDICT_DIFFERS], counts[VERDICT_UNSETTLED]);
    g_free(guest);
}
