/* fuzz_recipe.c - any text as a recipe: one error that names it, or a recipe whose numbers are in
 * their bounds and whose digest is that of a second reading.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/utf8.h"
#include "ranker/training/recipe.h"
#include "tests/fuzz/fuzz.h"

static void require(int condition)
{
    if (!condition)
        abort();
}

static void look_at(const mr_recipe *r)
{
    require(r->stage < MR_STAGE_COUNT && strlen(r->digest) == 16);
    for (size_t i = 0; i < r->n_parts; i++) {
        const mr_recipe_part *part = &r->part[i];
        require(part->name && !part->from != !part->made);
        require(mr_recipe_find_part(r, part->name) == part); /* so no name is there twice */
        require(part->deviation >= 0 && part->deviation <= 1);
        if (part->made && strcmp(part->made, "decoder") == 0)
            require(part->layers > 0 && part->width > 0 && part->ffn > 0 && part->head_dim > 0 &&
                    part->head_dim % 2 == 0 && part->heads % part->kv_heads == 0);
    }
    for (size_t i = 0; i < r->n_freeze; i++)
        require(r->freeze[i] && r->freeze[i][0]);
    for (size_t i = 0; i < r->data.n_lists; i++)
        require(r->data.lists[i].file && r->data.lists[i].weight >= 0);
    if (r->stage == MR_STAGE_BPE) {
        require(r->vocabulary >= 256);
        return;
    }
    require(r->n_losses > 0 && r->batch > 0 && r->shards > 0 && r->shards <= r->batch);
    for (size_t i = 0; i < r->n_losses; i++)
        require(r->loss[i].weight >= 0 && isfinite(r->loss[i].weight_late) &&
                r->loss[i].temperature > 0);
    require((r->steps > 0) != (r->epochs > 0));
    require(r->accumulate > 0 && r->max_tokens > 0 && r->candidates > 1 && r->history > 0);
    require(r->optimizer.rate >= 0 && r->optimizer.eps > 0 && r->optimizer.beta2 < 1);
    require(r->checkpoint.minutes > 0 && r->checkpoint.keep > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mr_recipe *recipe = NULL, *again = NULL;
    mr_error err = {0};
    const char *text = (const char *)data;
    const mr_status status = mr_recipe_parse(&recipe, "fuzz", text, size, &err);
    if (status != MR_OK) {
        require(!recipe && err.status == status && strncmp(err.message, "fuzz:", 5) == 0);
        require(mr_utf8_valid_prefix(err.message, strlen(err.message)) == strlen(err.message));
        return 0;
    }
    look_at(recipe);
    require(mr_recipe_parse(&again, "again", text, size, NULL) == MR_OK);
    require(strcmp(recipe->digest, again->digest) == 0);
    mr_recipe_free(again);
    mr_recipe_free(recipe);
    return 0;
}
