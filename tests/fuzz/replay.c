/*
 * Replays inputs of a fuzz target, without libFuzzer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Takes files, and directories of them; says how many inputs there were, or with which one it went wrong.
 */

#include "fuzz.h"

#include <dirent.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char current[4096];
static unsigned int replayed;

/* What the sanitizers find ends the program in the same way as what the target finds. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void)
{
    return "abort_on_error=1";
}

const char *__ubsan_default_options(void)
{
    return "halt_on_error=1:abort_on_error=1:print_stacktrace=1";
}

static void on_abort(int number)
{
    static const char text[] = "\nwhile replaying ";

    (void)number;
    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0 || write(STDERR_FILENO, current, strlen(current)) < 0 ||
        write(STDERR_FILENO, "\n", 1) < 0) {
        _exit(2);
    }
    _exit(1);
}

static void give_up(const char *path)
{
    perror(path);
    exit(2);
}

static void replay_file(const char *path, size_t size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = malloc(size + !size);

    if (!file || !bytes || fread(bytes, 1, size, file) != size) {
        give_up(path);
    }
    fclose(file);
    snprintf(current, sizeof(current), "%s", path);
    LLVMFuzzerTestOneInput(bytes, size);
    replayed++;
    free(bytes);
}

static void replay(const char *path);

static void replay_directory(const char *path)
{
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);

    if (count < 0) {
        give_up(path);
    }
    for (int i = 0; i < count; i++) {
        char name[4096];

        if (entries[i]->d_name[0] != '.') {
            snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
            replay(name);
        }
        free(entries[i]);
    }
    free(entries);
}

static void replay(const char *path)
{
    struct stat status;

    if (stat(path, &status) < 0) {
        give_up(path);
    }
    if (S_ISDIR(status.st_mode)) {
        replay_directory(path);
    } else {
        replay_file(path, (size_t)status.st_size);
    }
}

int main(int argc, char **argv)
{
    signal(SIGABRT, on_abort);
    for (int i = 1; i < argc; i++) {
        replay(argv[i]);
    }
    if (!replayed) {
        fprintf(stderr, "%s: no inputs; give it files or directories of them\n", argv[0]);
        return 2;
    }
    printf("%u inputs\n", replayed);
    return 0;
}
