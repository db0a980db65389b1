/*
 * sim: seeded simulation of the core
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * One 64-bit seed decides a whole run: who talks to whom (scenario.c), what goes wrong and when (world.c).  The run is
 * judged by checker.c and by the hosts themselves.  A seed that fails is run once more, with a trace of which the end
 * is shown.
 */

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "enumerate.h"
#include "world.h"

enum {
    TRACE_LINES = 60,
};

static volatile uint64_t current_seed;

typedef struct {
    uint64_t runs;
    uint64_t failed;
    uint64_t asked[COLO_REASONS];
    /* Runs, and checkpoints asked for, by class of events: without it, with it. */
    uint64_t class_runs[CLASSES][2];
    uint64_t class_asked[CLASSES][2];
    uint64_t checkpoints;
    uint64_t failovers;
    uint64_t frames_in;
    uint64_t frames_narrowed;
    uint64_t frames_waited;
    uint64_t bytes;
    int64_t simulated;
} Summary;

static void on_abort(int signal)
{
    char text[100];
    int len = g_snprintf(text, sizeof(text), "sim: seed %" PRIu64 " ended with signal %d\n", current_seed, signal);

    if (write(STDERR_FILENO, text, (size_t)len) < 0) {
        _exit(2);
    }
    _exit(1);
}

/* A wrong access is to end in on_abort(), too.  Called by the sanitizer, if there is one. */
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
    return "abort_on_error=1";
}

static void print_classes(uint32_t classes)
{
    for (int class = 0; class < CLASSES; class++) {
        if (classes >> class & 1) {
            printf(" %s", class_names[class]);
        }
    }
}

/* Runs the seed once more and shows how it ended. */
static void show_failure(uint64_t seed, uint32_t classes, const Outcome *outcome)
{
    char *text = NULL;
    size_t size = 0;
    FILE *trace = open_memstream(&text, &size);
    Scenario scenario;
    const char *at;
    int lines = 0;

    scenario_draw(&scenario, seed, classes);
    printf("sim: seed %" PRIu64 " FAILED: %s\n", seed, outcome->failure);
    printf("with these classes of events:");
    print_classes(scenario.classes);
    printf("\nthe last %d lines of what happened (all: sim --seed %" PRIu64 " --verbose):\n", TRACE_LINES, seed);
    world_run(seed, classes, trace);
    fclose(trace);
    for (at = text + size; at > text && lines <= TRACE_LINES; at--) {
        lines += at[-1] == '\n';
    }
    fputs(at > text ? at + 1 : at, stdout);
    fflush(stdout);
    free(text);
}

static void add(Summary *sum, const Outcome *o, uint32_t classes)
{
    uint64_t asked = 0;

    sum->runs++;
    for (int reason = 0; reason < COLO_REASONS; reason++) {
        sum->asked[reason] += o->asked[reason];
        asked += o->asked[reason];
    }
    for (int class = 0; class < CLASSES; class++) {
        bool has = classes >> class & 1;

        sum->class_runs[class][has]++;
        sum->class_asked[class][has] += asked;
    }
    sum->checkpoints += o->checkpoints;
    sum->failovers += o->failed_over;
    sum->frames_in += o->frames_in;
    sum->frames_narrowed += o->frames_narrowed;
    sum->frames_waited += o->frames_waited;
    sum->bytes += o->bytes_received;
    sum->simulated += o->simulated;
}

static void print_summary(const Summary *sum)
{
    printf("checkpoints: %" PRIu64 "; asked for because of", sum->checkpoints);
    for (int reason = 0; reason < COLO_REASONS; reason++) {
        printf(" %s %" PRIu64, colo_reason_name(reason), sum->asked[reason]);
    }
    printf("\nfailovers: %" PRIu64 "; frames compared: %" PRIu64 "; windows narrowed: %" PRIu64
           "; kept by the rewriter: %" PRIu64 "; bytes to the client: %" PRIu64 "\n", sum->failovers, sum->frames_in,
           sum->frames_narrowed, sum->frames_waited, sum->bytes);
    printf("checkpoints asked for per run, without and with each class of events:\n");
    for (int class = 0; class < CLASSES; class++) {
        printf("  %-16s", class_names[class]);
        for (int has = 0; has < 2; has++) {
            printf(" %8.3f", (double)sum->class_asked[class][has] / (double)MAX(sum->class_runs[class][has], 1));
        }
        printf("\n");
    }
}

int main(int argc, char **argv)
{
    gint64 seeds = 1000, first = 1, seed = -1, at_most = -1;
    uint64_t asked = 0;
    gdouble minutes = 0;
    gboolean verbose = false, summary = false, keep_going = false, enumerate = false;
    gchar **without = NULL, **only = NULL;
    uint32_t classes = (1u << CLASSES) - 1;
    GOptionEntry entries[] = {
        { "seeds", 'n', 0, G_OPTION_ARG_INT64, &seeds, "how many runs (default: 1000)", "N" },
        { "first", 'f', 0, G_OPTION_ARG_INT64, &first, "the first of their seeds (default: 1)", "S" },
        { "minutes", 'm', 0, G_OPTION_ARG_DOUBLE, &minutes, "run as long as that instead", "M" },
        { "seed", 's', 0, G_OPTION_ARG_INT64, &seed, "this run only", "S" },
        { "verbose", 'v', 0, G_OPTION_ARG_NONE, &verbose, "say all that happens", NULL },
        { "summary", 0, 0, G_OPTION_ARG_NONE, &summary, "say what checkpoints were asked for", NULL },
        { "keep-going", 'k', 0, G_OPTION_ARG_NONE, &keep_going, "do not stop at the first failure", NULL },
        { "without", 0, 0, G_OPTION_ARG_STRING_ARRAY, &without, "leave out a class of events (repeatable)", "CLASS" },
        { "only", 0, 0, G_OPTION_ARG_STRING_ARRAY, &only, "leave out all other classes (repeatable)", "CLASS" },
        { "asked-at-most", 0, 0, G_OPTION_ARG_INT64, &at_most, "fail if more checkpoints are asked for in all", "N" },
        { "enumerate", 0, 0, G_OPTION_ARG_NONE, &enumerate, "go through small spaces, whole, and nothing else", NULL },
        {0},
    };
    GOptionContext *options = g_option_context_new("- seeded simulation of the core");
    GError *error = NULL;
    Summary sum = { 0 };
    gint64 began = g_get_monotonic_time();

    g_option_context_add_main_entries(options, entries, NULL);
    if (!g_option_context_parse(options, &argc, &argv, &error)) {
        fprintf(stderr, "sim: %s\n", error->message);
        return 2;
    }
    g_option_context_free(options);
    for (int list = 0; list < 2; list++) {
        gchar **names = list ? only : without;
        uint32_t named = 0;

        for (int i = 0; names && names[i]; i++) {
            int class = 0;

            while (class < CLASSES && strcmp(class_names[class], names[i]) != 0) {
                class++;
            }
            if (class == CLASSES) {
                fprintf(stderr, "sim: there is no class of events \"%s\"; there are:", names[i]);
                for (class = 0; class < CLASSES; class++) {
                    fprintf(stderr, " %s", class_names[class]);
                }
                fprintf(stderr, "\n");
                return 2;
            }
            named |= 1u << class;
        }
        classes &= list && names ? named : list ? classes : ~named;
        g_strfreev(names);
    }
    if (enumerate) {
        return enumerate_all() ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    signal(SIGABRT, on_abort);
    signal(SIGSEGV, on_abort);

    if (seed >= 0) {
        first = seed;
        seeds = 1;
    }
    printf("sim: seeds from %" PRIi64 " on\n", first);
    fflush(stdout);
    for (gint64 i = 0;
         minutes > 0 ? (double)(g_get_monotonic_time() - began) < minutes * 60 * G_USEC_PER_SEC : i < seeds; i++) {
        Scenario scenario;
        Outcome outcome;

        current_seed = (uint64_t)(first + i);
        scenario_draw(&scenario, current_seed, classes);
        outcome = world_run(current_seed, classes, verbose ? stdout : NULL);
        add(&sum, &outcome, scenario.classes);
        if (outcome.failed) {
            sum.failed++;
            if (keep_going) {
                printf("sim: seed %" PRIu64 " FAILED: %s\n", current_seed, outcome.failure);
                fflush(stdout);
            } else {
                show_failure(current_seed, classes, &outcome);
                break;
            }
        }
    }
    if (summary || verbose) {
        print_summary(&sum);
    }
    for (int reason = 0; reason < COLO_REASONS; reason++) {
        asked += sum.asked[reason];
    }
    if (at_most >= 0 && asked > (uint64_t)at_most) {
        printf("sim: FAILED: %" PRIu64 " checkpoints were asked for; at most %" PRIi64 " should\n", asked, at_most);
        sum.failed++;
    }
    printf("sim: %" PRIu64 " runs, %" PRIu64 " failed, %.0f simulated seconds in %.1f\n", sum.runs, sum.failed,
           (double)sum.simulated / (double)SECOND, (double)(g_get_monotonic_time() - began) / G_USEC_PER_SEC);
    return sum.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
