/* history_draw.c - see history_draw.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/history_draw.h"

#include <string.h>

bool mr_history_draw_open(mr_history_draw *out, const mr_trainer *trainer, const mr_lists *lists,
                          mr_arena *arena)
{
    const size_t room = mr_lists_n_items(lists), most = mr_trainer_history(trainer);
    *out = (mr_history_draw){
        .lists = lists, .order = trainer->spec.user_order, .most = most, .room = room};
    out->id = mr_arena_array(arena, mr_str, room);
    out->item = mr_arena_array(arena, uint32_t, room);
    out->chosen = mr_arena_array(arena, size_t, most);
    out->scratch = mr_arena_alloc(arena, mr_history_scratch_bytes(room), 1, 16);
    return out->id && out->item && out->chosen && out->scratch;
}

void mr_shuffle_items(uint32_t *x, size_t n, mr_rng *rng)
{
    for (size_t i = n; i > 1; i--) {
        const size_t j = (size_t)mr_rng_below(rng, i);
        const uint32_t kept = x[i - 1];
        x[i - 1] = x[j];
        x[j] = kept;
    }
}

size_t mr_history_draw_choose(mr_history_draw *draw, const uint32_t *items, size_t n, bool valid,
                              mr_rng *rng, uint32_t *out)
{
    if (n > draw->room)
        n = draw->room;
    if (n > 0)
        memcpy(draw->item, items, n * sizeof *items);
    if (!valid && n > draw->most && draw->order == MR_HISTORY_SET) {
        mr_shuffle_items(draw->item, n, rng);
        n = draw->most;
    }
    for (size_t i = 0; i < n; i++)
        draw->id[i] = mr_lists_item(draw->lists, draw->item[i])->id;
    const size_t chosen =
        mr_history_choose(draw->id, n, draw->order, draw->most, draw->chosen, draw->scratch);
    for (size_t i = 0; i < chosen; i++)
        out[i] = draw->item[draw->chosen[i]];
    return chosen;
}
