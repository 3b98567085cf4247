/* stage_rank.c - lists to rank: listwise softmax, yes/no, distillation from a text teacher and
 * alignment of vectors with text (MixLM, arXiv 2512.07846, section on training).
 *
 * While the encoder is frozen its embedding tokens are computed once. When it is trained, each
 * shard encodes the items of its lists anew, candidates and histories, each once, and the gradient
 * goes on into the encoder. Each shard computes its own lists and their losses: nothing is joined.
 *
 *   loss = sum over lists of  w_listwise x ListNet(margins, 2^grade - 1)
 *                           + w_yes_no   x BCE(margins, grade / highest grade)
 *                           + w_distill  x KL(teacher || student) over the list
 *                           + w_align    x (alpha KL(text || vectors) + beta (1 - cos of states))
 *          / lists of the batch
 *
 * In align, the text side is the same llm with the teacher's prompts; it is a target: no gradient
 * goes through it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ranker/training/item_batch.h"
#include "ranker/training/losses.h"
#include "ranker/training/rank_pass.h"

#define VALID_BATCHES 32

typedef struct {
    mr_rank_draw draw;
    mr_rank_pass student, teacher, text;
    mr_item_batch items; /* of a trained encoder: those of the lists */
    mr_item_tokens tokens;
    float *gain, *scratch; /* [candidates] */
    double loss;
} shard;

typedef struct {
    mr_trainer *trainer;
    mr_lists lists;
    mr_text_table texts;
    float *table; /* [n_items][T][dim] of the encoder as it was at the start, or NULL */
    mr_trainer_spec teacher_spec;
    bool joint, has_teacher, has_align;
    int highest_grade;
    shard *shard;
} stage;

static const mr_trainer_part no_part;

/* ---- Opening --------------------------------------------------------------------------------- */

static void close_stage(void *state)
{
    stage *st = state;
    if (!st)
        return;
    for (size_t s = 0; st->shard && s < st->trainer->n_shards; s++) {
        shard *sh = &st->shard[s];
        mr_rank_draw_close(&sh->draw);
        mr_rank_pass_close(&sh->student);
        mr_rank_pass_close(&sh->teacher);
        mr_rank_pass_close(&sh->text);
        mr_item_batch_close(&sh->items);
        free(sh->gain);
        free(sh->scratch);
    }
    free(st->shard);
    free(st->table);
    mr_text_table_release(&st->texts);
    mr_trainer_spec_close(&st->teacher_spec);
    mr_lists_close(&st->lists);
    free(st);
}

static bool has_loss(const mr_recipe *recipe, mr_loss_kind kind)
{
    for (size_t i = 0; i < recipe->n_losses; i++)
        if (recipe->loss[i].kind == kind)
            return true;
    return false;
}

/* Where users have no projector of their own, the items' serves, as in a bundle. */
static mr_status open_shard(stage *st, shard *sh, mr_error *err)
{
    mr_trainer *t = st->trainer;
    const mr_recipe *recipe = t->recipe;
    const size_t lists = ((size_t)recipe->batch + t->n_shards - 1) / t->n_shards;
    const size_t per_list = (size_t)recipe->candidates + (size_t)recipe->history;
    sh->gain = calloc((size_t)recipe->candidates, sizeof *sh->gain);
    sh->scratch = calloc((size_t)recipe->candidates, sizeof *sh->scratch);
    mr_status status = sh->gain && sh->scratch
                           ? mr_rank_draw_open(&sh->draw, t, &st->lists, lists, err)
                           : MR_FAIL(err, NO_MEMORY, "a shard");
    if (status == MR_OK)
        status = mr_rank_pass_open(&sh->student, t, &t->spec, &t->llm, &t->item_projector,
                                   &t->user_projector, &st->lists, lists, err);
    if (status == MR_OK && t->user.recipe)
        status = mr_rank_pass_encode_users(&sh->student, &t->user, lists, err);
    if (status == MR_OK && st->has_teacher)
        status = mr_rank_pass_open(&sh->teacher, t, &st->teacher_spec, &t->teacher,
                                   &t->teacher_projector, &no_part, &st->lists, lists, err);
    if (status == MR_OK && st->has_align)
        status = mr_rank_pass_open(&sh->text, t, &st->teacher_spec, &t->llm, &t->item_projector,
                                   &t->user_projector, &st->lists, lists, err);
    if (status == MR_OK && st->has_align && t->user.recipe)
        status = mr_rank_pass_encode_users(&sh->text, &t->user, lists, err);
    if (status != MR_OK || !st->joint)
        return status;
    return mr_item_batch_open(&sh->items, t, &st->texts, lists * per_list, err);
}

static mr_status check_parts(const mr_trainer *t, mr_error *err)
{
    mr_status status = mr_trainer_need(t, &t->llm, "llm", err);
    const bool user = t->spec.prefix && mr_template_uses_slot(t->spec.prefix, MR_SLOT_USER);
    if (status == MR_OK && (t->spec.mixed || user))
        status = mr_trainer_need(t, &t->encoder, "encoder", err);
    if (status == MR_OK && t->encoder.recipe && !t->spec.item_text)
        status =
            MR_FAIL(err, INVALID, "'%s' does not describe encoders.item, as part 'encoder' needs",
                    t->recipe->bundle);
    if (status == MR_OK && t->user.recipe && !user)
        status = MR_FAIL(err, INVALID,
                         "part 'user' has no effect: the prefix of '%s' has no slot for a user",
                         t->recipe->bundle);
    if (status == MR_OK && t->spec.mixed && !t->item_projector.recipe &&
        t->encoder.decoder.config.C != t->llm.decoder.config.C)
        status =
            MR_FAIL(err, MISMATCH,
                    "without a part item_projector the encoder's width %d must be the llm's %d",
                    t->encoder.decoder.config.C, t->llm.decoder.config.C);
    return status;
}

static mr_status check_weights(const stage *st, mr_error *err)
{
    const mr_recipe_data *data = &st->trainer->recipe->data;
    double total = st->lists.n_baskets > 0 ? data->users_weight : 0;
    for (size_t i = 0; i < data->n_lists; i++)
        total += data->lists[i].weight;
    return total > 0 ? MR_OK
                     : MR_FAIL(err, INVALID,
                               "data.lists have weight 0 altogether: no list is ever drawn");
}

static void find_highest_grade(stage *st)
{
    st->highest_grade = 1;
    for (size_t s = 0; s < st->lists.n_sources; s++)
        for (size_t i = 0; i < st->lists.source[s].n_train; i++)
            for (size_t k = 0; k < st->lists.source[s].train[i]->n_labels; k++)
                if (st->lists.source[s].train[i]->labels[k].grade > st->highest_grade)
                    st->highest_grade = st->lists.source[s].train[i]->labels[k].grade;
}

static mr_status open_stage(mr_trainer *t, void **state, uint64_t *examples, mr_error *err)
{
    mr_status status = check_parts(t, err);
    if (status != MR_OK)
        return status;
    stage *st = calloc(1, sizeof *st);
    *state = st;
    if (!st)
        return MR_FAIL(err, NO_MEMORY, "the stage");
    st->trainer = t;
    st->joint = mr_trainer_trains(t, &t->encoder);
    st->has_teacher = has_loss(t->recipe, MR_LOSS_DISTILL);
    st->has_align = has_loss(t->recipe, MR_LOSS_ALIGN);
    status = mr_lists_open(&st->lists, t->recipe, err);
    if (status == MR_OK && (st->has_teacher || st->has_align))
        status = mr_trainer_spec_open(&st->teacher_spec, t->recipe->teacher, t->tokenizer, err);
    if (status == MR_OK && t->encoder.recipe)
        status = mr_item_texts_add(&st->texts, t, &st->lists, t->spec.item_max_tokens, err);
    if (status == MR_OK && t->encoder.recipe && (!st->joint || st->has_teacher))
        status = mr_item_table_new(&st->table, t, &st->texts, err);
    if (status == MR_OK)
        status = check_weights(st, err);
    find_highest_grade(st);
    st->shard = calloc(t->n_shards, sizeof *st->shard);
    if (status == MR_OK && !st->shard)
        status = MR_FAIL(err, NO_MEMORY, "%zu shards", t->n_shards);
    for (size_t s = 0; status == MR_OK && s < t->n_shards; s++)
        status = open_shard(st, &st->shard[s], err);
    *examples = mr_rank_draw_examples(&st->lists, false);
    return status;
}

/* ---- Embedding tokens ------------------------------------------------------------------------ */

static mr_item_tokens whole_table(const stage *st)
{
    const mr_trainer *t = st->trainer;
    if (!t->encoder.recipe)
        return (mr_item_tokens){.T = 0, .dim = (size_t)t->llm.decoder.config.C};
    return (mr_item_tokens){.tokens = st->table,
                            .T = (size_t)t->spec.item_tokens,
                            .dim = (size_t)t->encoder.decoder.config.C};
}

/* Through the encoder that is trained: every item of the lists once. */
static mr_status encode_items(stage *st, shard *sh, mr_error *err)
{
    mr_status status = MR_OK;
    mr_item_batch_begin(&sh->items);
    for (size_t l = 0; l < sh->draw.n_lists; l++) {
        const mr_rank_list *list = &sh->draw.list[l];
        for (size_t i = 0; status == MR_OK && i < list->n && st->trainer->spec.mixed; i++)
            status = mr_item_batch_add(&sh->items, list->item[i], err);
        for (size_t i = 0; status == MR_OK && i < list->n_history; i++)
            status = mr_item_batch_add(&sh->items, list->history[i], err);
    }
    if (status == MR_OK)
        sh->tokens = mr_item_batch_forward(&sh->items);
    return status;
}

/* ---- Losses ---------------------------------------------------------------------------------- */

/* Of one list, times `weight`: adds to the student's d_margin. */
static double list_loss(const stage *st, shard *sh, const mr_recipe_loss *loss, size_t l,
                        double weight)
{
    const mr_rank_list *list = &sh->draw.list[l];
    const size_t first = sh->student.first[l];
    const float *margin = sh->student.margin + first;
    double value = 0;
    switch (loss->kind) {
    case MR_LOSS_LISTWISE:
        for (size_t i = 0; i < list->n; i++)
            sh->gain[i] = (float)(exp2(list->grade[i]) - 1);
        value = mr_loss_listwise(margin, sh->gain, list->n, sh->scratch);
        break;
    case MR_LOSS_YES_NO:
        for (size_t i = 0; i < list->n; i++)
            sh->gain[i] = (float)list->grade[i] / (float)st->highest_grade;
        value = mr_loss_yes_no(margin, sh->gain, list->n, sh->scratch);
        break;
    case MR_LOSS_DISTILL:
        value = mr_loss_distill(margin, sh->teacher.margin + first, list->n, loss->temperature,
                                sh->scratch);
        break;
    case MR_LOSS_ALIGN:
        weight *= loss->alpha;
        value = mr_loss_distill(margin, sh->text.margin + first, list->n, 1, sh->scratch);
        break;
    default: return 0;
    }
    for (size_t i = 0; i < list->n; i++)
        sh->student.d_margin[first + i] += (float)weight * sh->scratch[i];
    return weight * value;
}

/* beta (1 - cos), mean over the candidates of a list: sets the student's d_out. */
static double state_loss(const stage *st, shard *sh, size_t l, double weight)
{
    const size_t C = (size_t)st->trainer->llm.decoder.config.C;
    const size_t first = sh->student.first[l], n = sh->draw.list[l].n;
    double value = 0;
    for (size_t i = first; i < first + n; i++) {
        float *d_out = sh->student.d_out + i * C;
        value += mr_loss_cosine(sh->student.out + i * C, sh->text.out + i * C, C, d_out);
        for (size_t c = 0; c < C; c++)
            d_out[c] *= (float)(weight / (double)n);
    }
    return weight * value / (double)n;
}

static double weight_of(const mr_recipe_loss *loss, const mr_batch_place *place)
{
    return place->second_phase > 0 ? loss->weight_late : loss->weight;
}

static uint64_t lists_of(const stage *st, const mr_batch_place *place)
{
    const uint64_t batch = (uint64_t)st->trainer->recipe->batch;
    if (!place->valid)
        return batch;
    const uint64_t left = mr_rank_draw_examples(&st->lists, true) - place->number * batch;
    return left < batch ? left : batch;
}

/* ---- Passes ---------------------------------------------------------------------------------- */

static mr_status forward(void *state, size_t index, const mr_batch_place *place, mr_error *err)
{
    stage *st = state;
    shard *sh = &st->shard[index];
    const mr_recipe *recipe = st->trainer->recipe;
    const uint64_t lists = lists_of(st, place), batch = (uint64_t)recipe->batch;
    mr_rank_draw_clear(&sh->draw);
    mr_status status = MR_OK;
    for (uint64_t e = index; status == MR_OK && e < lists; e += st->trainer->n_shards)
        status = mr_rank_draw_add(&sh->draw, place->number * batch + e, place->valid, err);
    sh->tokens = whole_table(st);
    if (status == MR_OK && st->joint)
        status = encode_items(st, sh, err);
    if (status == MR_OK)
        status = mr_rank_pass_forward(&sh->student, &sh->draw, &sh->tokens, err);
    const mr_item_tokens fixed = whole_table(st);
    if (status == MR_OK && st->has_teacher)
        status = mr_rank_pass_forward(&sh->teacher, &sh->draw, &fixed, err);
    if (status == MR_OK && st->has_align)
        status = mr_rank_pass_forward(&sh->text, &sh->draw, &sh->tokens, err);
    if (status != MR_OK)
        return status;

    sh->loss = 0;
    memset(sh->student.d_margin, 0, sh->student.first[sh->draw.n_lists] * sizeof(float));
    for (size_t l = 0; l < sh->draw.n_lists; l++) {
        for (size_t i = 0; i < recipe->n_losses; i++) {
            const mr_recipe_loss *loss = &recipe->loss[i];
            const double weight = weight_of(loss, place) / (double)lists;
            sh->loss += list_loss(st, sh, loss, l, weight);
            if (loss->kind == MR_LOSS_ALIGN)
                sh->loss += state_loss(st, sh, l, weight * loss->beta);
        }
    }
    return MR_OK;
}

static mr_status backward(void *state, size_t index, const mr_batch_place *place, float *gradients,
                          mr_shard_report *report, mr_error *err)
{
    (void)place;
    (void)err;
    stage *st = state;
    shard *sh = &st->shard[index];
    report->loss = sh->loss;
    report->tokens = sh->draw.n_lists > 0 ? sh->student.pack.rows : 0;
    if (st->joint)
        report->tokens += mr_item_batch_rows(&sh->items);
    if (!gradients || sh->draw.n_lists == 0)
        return MR_OK;
    float *d_tokens = st->joint ? mr_item_batch_gradient(&sh->items) : NULL;
    mr_rank_pass_backward(&sh->student, st->has_align, &sh->tokens, gradients, d_tokens);
    if (st->joint)
        mr_item_batch_backward(&sh->items, gradients);
    return MR_OK;
}

static size_t valid_batches(void *state)
{
    const stage *st = state;
    const size_t batch = (size_t)st->trainer->recipe->batch;
    const size_t n = ((size_t)mr_rank_draw_examples(&st->lists, true) + batch - 1) / batch;
    return n < VALID_BATCHES ? n : VALID_BATCHES;
}

const mr_stage mr_stage_rank = {.open = open_stage,
                                .close = close_stage,
                                .forward = forward,
                                .backward = backward,
                                .valid_batches = valid_batches};
