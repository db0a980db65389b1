/*
 * What a rewriter knows, as part of the migrated state of its machine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "net/colo-vmstate.h"
#include "migration/qemu-file-types.h"
#include "net/colo-frame.h"
#include "net/colo-host.h"
#include "qemu/error-report.h"

/* Bytes are fetched so many at a time: of memory no more is used than what has really come is worth. */
#define PIECE 65536

static int put_connections(QEMUFile *f, void *opaque, size_t size, const VMStateField *field, JSONWriter *writer)
{
    ColoRewriterVMState *state = opaque;
    GByteArray *saved = colo_rewriter_save(state->rewriter);

    state->saved = true;
    qemu_put_be32(f, saved->len);
    qemu_put_buffer(f, saved->data, saved->len);
    g_byte_array_unref(saved);
    return 0;
}

static int get_connections(QEMUFile *f, void *opaque, size_t size, const VMStateField *field)
{
    ColoRewriterVMState *state = opaque;
    g_autoptr(GByteArray) saved = g_byte_array_new();
    uint32_t left = qemu_get_be32(f);

    while (left) {
        uint32_t len = MIN(left, PIECE);

        g_byte_array_set_size(saved, saved->len + len);
        if (qemu_get_buffer(f, saved->data + saved->len - len, len) != len) {
            error_report("%s: the state ends %" PRIu32 " bytes too early", state->name, left);
            return -EINVAL;
        }
        left -= len;
    }
    if (!colo_rewriter_load(state->rewriter, saved->data, saved->len)) {
        error_report("%s: %u bytes are no list of connections; is the same version on both nodes?", state->name, saved->len);
        return -EINVAL;
    }
    return 0;
}

static const VMStateInfo connections_info = {
    .name = "connections",
    .get = get_connections,
    .put = put_connections,
};

static bool is_wanted(void *opaque)
{
    ColoRewriterVMState *state = opaque;

    return colo_host_mode() == COLO_MODE_PRIMARY && colo_rewriter_must_be_saved(state->rewriter);
}

/*
 * The first migration brings a secondary that knows no connections; the checkpoint that tells it of them must not wait until
 * there is another reason for one.
 */
static void vm_state_changed(void *opaque, bool running, RunState run_state)
{
    ColoRewriterVMState *state = opaque;

    if (colo_host_mode() != COLO_MODE_PRIMARY) {
        state->saved = false;
    } else if (running && !state->saved && colo_rewriter_must_be_saved(state->rewriter)) {
        colo_frame_ask();
    }
}

void colo_vmstate_begin(ColoRewriterVMState *state, const char *netdev, ColoRewriter *rewriter)
{
    state->rewriter = rewriter;
    state->name = g_strdup_printf("colo-rewriter/%s", netdev);
    state->fields[0] = (VMStateField) { .name = "connections", .info = &connections_info, .flags = VMS_SINGLE };
    state->fields[1] = (VMStateField) VMSTATE_END_OF_LIST();
    state->description = (VMStateDescription) {
        .name = state->name,
        .version_id = 1,
        .minimum_version_id = 1,
        .needed = is_wanted,
        .fields = state->fields,
    };
    vmstate_register(NULL, VMSTATE_INSTANCE_ID_ANY, &state->description, state);
    state->vm_state = qemu_add_vm_change_state_handler(vm_state_changed, state);
}

void colo_vmstate_end(ColoRewriterVMState *state)
{
    if (state->name) {
        qemu_del_vm_change_state_handler(state->vm_state);
        vmstate_unregister(NULL, &state->description, state);
        g_free(state->name);
        state->name = NULL;
    }
}
