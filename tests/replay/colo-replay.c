/*
 * colo-replay: where do two captures of a COLO pair agree, where do they differ, and what would it have cost?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <stdio.h>
#include <stdlib.h>

#include "report.h"

enum {
    EXIT_AGREE,
    EXIT_DIFFER,
    EXIT_TROUBLE,
};

typedef struct {
    ReplayOptions replay;
    char *released;
    Guest *guest;
    bool json;
} Options;

static gboolean on_guest(const char *name, const char *value, gpointer data, GError **error)
{
    (void)name;
    return guest_add(((Options *)data)->guest, value, error);
}

static gboolean on_checkpoint(const char *name, const char *value, gpointer data, GError **error)
{
    Options *options = data;

    (void)name;
    options->replay.checkpoints = !g_strcmp0(value, "at-divergence");
    if (!options->replay.checkpoints && g_strcmp0(value, "never") != 0) {
        g_set_error(error, REPLAY_ERROR, 0, "--checkpoint %s: neither never nor at-divergence", value);
        return FALSE;
    }
    return TRUE;
}

static gboolean on_offset(const char *name, const char *value, gpointer data, GError **error)
{
    Options *options = data;
    char *end;
    double seconds = g_ascii_strtod(value, &end);

    (void)name;
    if (end == value || *end || !(seconds >= -4e9 && seconds <= 4e9)) {
        g_set_error(error, REPLAY_ERROR, 0, "--offset %s: not a number of seconds", value);
        return FALSE;
    }
    options->replay.offset_given = true;
    options->replay.offset = (int64_t)(seconds * SECOND);
    return TRUE;
}

static bool in_range(const char *name, int64_t value, int64_t min, int64_t max, GError **error)
{
    if (value < min || value > max) {
        g_set_error(error, REPLAY_ERROR, 0, "--%s: must be from %" G_GINT64_FORMAT " to %" G_GINT64_FORMAT, name, min,
                    max);
        return false;
    }
    return true;
}

static bool parse(Options *options, int *argc, char ***argv, GError **error)
{
    int timeout = 3000, pause = 20, queue = 1024;
    gboolean json = FALSE;
    const GOptionEntry entries[] = {
        { "guest", 0, 0, G_OPTION_ARG_CALLBACK, on_guest,
          "the guest's IPv4, IPv6 or Ethernet address; may be repeated (default: deduced)", "ADDRESS" },
        { "offset", 0, 0, G_OPTION_ARG_CALLBACK, on_offset,
          "what to add to the secondary's times (default: by the first input that both have)", "SECONDS" },
        { "checkpoint", 0, 0, G_OPTION_ARG_CALLBACK, on_checkpoint,
          "at-divergence: go on as if one had been made (default); never: what is held stays held", "WHEN" },
        { "pause", 0, 0, G_OPTION_ARG_INT, &pause, "how long a checkpoint takes (default: 20)", "MS" },
        { "timeout", 0, 0, G_OPTION_ARG_INT, &timeout, "compare_timeout (default: 3000)", "MS" },
        { "queue", 0, 0, G_OPTION_ARG_INT, &queue, "max_queue_size, packets per side and flow (default: 1024)", "N" },
        { "released", 0, 0, G_OPTION_ARG_FILENAME, &options->released,
          "write what may leave, when it may, to this pcap file", "FILE" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &json, "report for programs", NULL },
        { 0 },
    };
    GOptionContext *context = g_option_context_new("PRIMARY.pcap SECONDARY.pcap");
    GOptionGroup *group = g_option_group_new("replay", "", "", options, NULL);
    bool ok;

    g_option_group_add_entries(group, entries);
    g_option_context_set_main_group(context, group);
    g_option_context_set_summary(context,
        "Compares what the two guests of a COLO pair sent, as recorded on each side (pcap or pcapng,\n"
        "both directions, Ethernet), with the comparator that the proxy uses.");
    g_option_context_set_description(context,
        "Exit status: 0 if all flows agree, 1 if something differs, 2 for trouble.\n"
        "See docs/replay.rst for how to record, and how to read the report.");
    ok = g_option_context_parse(context, argc, argv, error);
    if (ok && *argc != 3) {
        g_set_error(error, REPLAY_ERROR, 0, "needs two captures, PRIMARY.pcap and SECONDARY.pcap; --help says more");
        ok = false;
    }
    ok = ok && in_range("timeout", timeout, 1, 3600 * 1000, error) && in_range("pause", pause, 0, 3600 * 1000, error) &&
         in_range("queue", queue, 1, 1000 * 1000, error);
    if (ok) {
        options->replay.path[COLO_PRIMARY] = (*argv)[1];
        options->replay.path[COLO_SECONDARY] = (*argv)[2];
        options->replay.released = options->released;
        options->replay.timeout = timeout * MS;
        options->replay.pause = pause * MS;
        options->replay.queue_size = (uint32_t)queue;
        options->json = json;
    }
    g_option_context_free(context);
    return ok;
}

static int run(const Options *options, GError **error)
{
    Replay *replay = replay_run(&options->replay, options->guest, error);
    int status;

    if (!replay) {
        return EXIT_TROUBLE;
    }
    (options->json ? report_json : report_text)(replay, &options->replay);
    status = report_all_agree(replay) ? EXIT_AGREE : EXIT_DIFFER;
    if (replay->account->unexpected) {
        g_set_error(error, REPLAY_ERROR, 0,
                    "the comparator released %" G_GUINT64_FORMAT " frames that the primary never sent: a fault of the "
                    "core, please report it with both captures", replay->account->unexpected);
        status = EXIT_TROUBLE;
    }
    replay_free(replay);
    return status;
}

int main(int argc, char **argv)
{
    Options options = { .replay = { .checkpoints = true }, .guest = guest_new() };
    GError *error = NULL;
    int status = EXIT_TROUBLE;

    if (parse(&options, &argc, &argv, &error)) {
        status = run(&options, &error);
    }
    if (error) {
        (void)fflush(stdout);
        (void)fprintf(stderr, "colo-replay: %s\n", error->message);
        g_error_free(error);
    }
    if (fflush(stdout) != 0) {
        status = EXIT_TROUBLE;
    }
    guest_free(options.guest);
    g_free(options.released);
    return status;
}
