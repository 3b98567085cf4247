/* trainer.c - the loop; see trainer.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/rng.h"
#include "ranker/training/journal.h"
#include "ranker/training/plot.h"
#include "ranker/training/train_bpe.h"
#include "ranker/training/trainer_private.h"

#define SMOOTHING    0.98  /* of the running mean of the loss */
#define ADD_ELEMENTS 65536 /* of a gradient that a thread adds at a time */

/* ---- Shuffling ------------------------------------------------------------------------------- */

static uint64_t mixed(uint64_t key, uint64_t value)
{
    mr_rng rng = mr_rng_seed(key ^ value * UINT64_C(0x9E3779B97F4A7C15));
    return mr_rng_u64(&rng);
}

/* A Feistel network over the next even number of bits, walked until the number is in range: a
 * permutation that needs no memory and no state. */
uint64_t mr_shuffle_at(uint64_t seed, uint64_t epoch, uint64_t n, uint64_t i)
{
    unsigned half = 1;
    while (half < 32 && (UINT64_C(1) << (2 * half)) < n)
        half++;
    const uint64_t mask = (UINT64_C(1) << half) - 1, key = mixed(seed, epoch + 1);
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < 6; round++) {
            const uint64_t next = left ^ (mixed(key + round, right) & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}

/* ---- A micro-batch --------------------------------------------------------------------------- */

typedef struct {
    mr_trainer *trainer;
    const mr_stage *stage;
    void *state;
    mr_batch_place place;
    bool backward, learn;
    mr_shard_report *report; /* [n_shards] */
    mr_status *status;       /* [n_shards] */
    mr_error *error;         /* [n_shards] */
} pass;

static void shard_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    pass *p = context;
    for (size_t s = begin; s < end; s++) {
        if (!p->backward)
            p->status[s] = p->stage->forward(p->state, s, &p->place, &p->error[s]);
        else
            p->status[s] = p->stage->backward(p->state, s, &p->place,
                                              p->learn ? p->trainer->gradient[s] : NULL,
                                              &p->report[s], &p->error[s]);
    }
}

static mr_status run_shards(pass *p, bool backward, mr_error *err)
{
    const size_t n = p->trainer->n_shards;
    p->backward = backward;
    mr_parallel_for(p->trainer->pool, n, 1, shard_task, p);
    for (size_t s = 0; s < n; s++) {
        if (p->status[s] == MR_OK)
            continue;
        if (err)
            *err = p->error[s];
        return p->status[s];
    }
    return MR_OK;
}

/* Adds to *loss and *tokens. */
static mr_status micro_batch(pass *p, double *loss, uint64_t *tokens, mr_error *err)
{
    const size_t n = p->trainer->n_shards;
    memset(p->report, 0, n * sizeof *p->report);
    mr_status status = run_shards(p, false, err);
    if (status == MR_OK && p->stage->join)
        status = p->stage->join(p->state, &p->place, err);
    if (status == MR_OK)
        status = run_shards(p, true, err);
    for (size_t s = 0; status == MR_OK && s < n; s++) {
        *loss += p->report[s].loss;
        *tokens += p->report[s].tokens;
    }
    return status;
}

/* ---- Gradients ------------------------------------------------------------------------------- */

static void zero_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    mr_trainer *t = context;
    for (size_t s = begin; s < end; s++)
        memset(t->gradient[s], 0, t->weights.total * sizeof(float));
}

/* The first shard's gradient += the others', in their order. */
static void add_task(void *context, size_t begin, size_t end, int worker)
{
    (void)worker;
    mr_trainer *t = context;
    for (size_t s = 1; s < t->n_shards; s++)
        t->ops->add(t->gradient[0] + begin, t->gradient[s] + begin, end - begin);
}

/* ---- The loop -------------------------------------------------------------------------------- */

typedef struct {
    mr_trainer trainer;
    const mr_stage *stage;
    void *state;
    pass pass;
    mr_journal *journal;
    mr_checkpoint_state at;
    int64_t steps;
    mr_schedule schedule;
    mr_adamw adamw;
    int64_t saved_us; /* when the last checkpoint was written */
    int64_t saved_step;
} loop;

static const mr_stage *const stages[MR_STAGE_COUNT] = {
    [MR_STAGE_NEXT_TOKEN] = &mr_stage_next_token,
    [MR_STAGE_CONTRASTIVE] = &mr_stage_contrastive,
    [MR_STAGE_RANK] = &mr_stage_rank,
    [MR_STAGE_USER] = &mr_stage_user,
    [MR_STAGE_CAPTION] = &mr_stage_caption,
};

static mr_status valid_loss(loop *l, double *out, mr_error *err)
{
    const size_t n = l->stage->valid_batches(l->state);
    double loss = 0;
    uint64_t tokens = 0;
    mr_status status = MR_OK;
    l->pass.learn = false;
    for (size_t b = 0; status == MR_OK && b < n; b++) {
        l->pass.place = (mr_batch_place){.number = b, .valid = true, .second_phase = 1};
        status = micro_batch(&l->pass, &loss, &tokens, err);
    }
    *out = n > 0 ? loss / (double)n : (double)NAN;
    if (status == MR_OK && n > 0 && !isfinite(*out))
        status = MR_FAIL(err, CORRUPT,
                         "step %" PRId64 ": the loss of the valid split is %g; lower "
                         "optimizer.rate. The last checkpoint is as it was",
                         l->at.step, *out);
    return status;
}

static mr_status step(loop *l, mr_train_progress *progress, mr_error *err)
{
    mr_trainer *t = &l->trainer;
    const mr_recipe *recipe = t->recipe;
    const int64_t number = l->at.step + 1;
    const int64_t started = mr_clock_monotonic_us();
    double loss = 0;
    uint64_t tokens = 0;

    mr_parallel_for(t->pool, t->n_shards, 1, zero_task, t);
    l->pass.learn = true;
    for (int i = 0; i < recipe->accumulate; i++) {
        l->pass.place = (mr_batch_place){
            .number = (uint64_t)(number - 1) * (uint64_t)recipe->accumulate + (uint64_t)i,
            .second_phase =
                (double)(number - 1) >= recipe->second_phase * (double)l->steps ? 1 : 0};
        mr_status status = micro_batch(&l->pass, &loss, &tokens, err);
        if (status != MR_OK)
            return status;
    }
    loss /= recipe->accumulate;
    mr_parallel_for(t->pool, t->weights.total, ADD_ELEMENTS, add_task, t);
    const double norm = mr_gradient_norm(t->parameter, t->n_parameters) / recipe->accumulate;
    if (!isfinite(loss) || !isfinite(norm))
        return MR_FAIL(err, CORRUPT,
                       "step %" PRId64 ": the loss is %g and the gradient's length %g; lower "
                       "optimizer.rate, or look at the data. The last checkpoint is as it was",
                       number, loss, norm);
    const double rate = mr_schedule_rate(&l->schedule, number);
    const double scale = mr_clip_scale(norm, recipe->optimizer.clip) / recipe->accumulate;
    mr_adamw_step(&l->adamw, number, rate, scale, t->parameter, t->n_parameters, t->pool);

    l->at.step = number;
    l->at.tokens += tokens;
    l->at.smooth_loss = number == 1 ? loss : SMOOTHING * l->at.smooth_loss + (1 - SMOOTHING) * loss;
    const double seconds = (double)(mr_clock_monotonic_us() - started) / 1e6;
    *progress = (mr_train_progress){.step = number,
                                    .steps = l->steps,
                                    .loss = loss,
                                    .smooth_loss = l->at.smooth_loss,
                                    .rate = rate,
                                    .gradient_norm = norm,
                                    .tokens_per_s = (double)tokens / (seconds + 1e-9),
                                    .valid_loss = NAN};
    return MR_OK;
}

static mr_status save(loop *l, mr_error *err)
{
    mr_status status = mr_journal_sync(l->journal, err);
    if (status == MR_OK)
        status = mr_checkpoint_write(&l->trainer, &l->at, err);
    if (status == MR_OK)
        status = mr_plot_journal(l->trainer.opt->out, err);
    l->saved_us = mr_clock_monotonic_us();
    l->saved_step = l->at.step;
    return status;
}

static bool due(const loop *l)
{
    const mr_recipe_checkpoint *checkpoint = &l->trainer.recipe->checkpoint;
    const double minutes = (double)(mr_clock_monotonic_us() - l->saved_us) / 60e6;
    return minutes >= checkpoint->minutes ||
           (checkpoint->steps > 0 && l->at.step - l->saved_step >= checkpoint->steps);
}

static bool stopped(const loop *l)
{
    const mr_train_options *opt = l->trainer.opt;
    return (opt->stop && *opt->stop) || (opt->stop_step > 0 && l->at.step >= opt->stop_step);
}

static mr_status run(loop *l, mr_train_summary *summary, mr_error *err)
{
    const mr_train_options *opt = l->trainer.opt;
    const int64_t valid_every = l->trainer.recipe->valid_every;
    const int64_t started = mr_clock_monotonic_us();
    const uint64_t tokens = l->at.tokens;
    mr_train_progress progress = {0};
    summary->first_step = l->at.step + 1;
    summary->valid_loss = l->at.valid_loss;
    while (l->at.step < l->steps && !stopped(l)) {
        mr_status status = step(l, &progress, err);
        if (status == MR_OK && valid_every > 0 &&
            (l->at.step % valid_every == 0 || l->at.step == l->steps)) {
            status = valid_loss(l, &progress.valid_loss, err);
            summary->valid_loss = l->at.valid_loss = progress.valid_loss;
        }
        if (status == MR_OK)
            status = mr_journal_add(l->journal, &progress, err);
        if (status == MR_OK && due(l))
            status = save(l, err);
        if (status != MR_OK)
            return status;
        if (opt->report)
            opt->report(opt->report_context, &progress);
    }
    mr_status status = l->saved_step < l->at.step ? save(l, err) : MR_OK;
    summary->last_step = l->at.step;
    summary->finished = l->at.step >= l->steps;
    summary->loss = l->at.smooth_loss;
    summary->tokens = l->at.tokens;
    summary->passed_over = l->trainer.passed_over;
    summary->tokens_per_s = (double)(l->at.tokens - tokens) /
                            ((double)(mr_clock_monotonic_us() - started) / 1e6 + 1e-9);
    if (status == MR_OK && summary->finished)
        status = mr_checkpoint_publish(&l->trainer, err);
    return status;
}

static mr_status open_journal(loop *l, mr_error *err)
{
    const char *path = mr_path_join(&l->trainer.arena, l->trainer.opt->out, "log.jsonl");
    return path ? mr_journal_open(&l->journal, path, l->at.step, 0, err)
                : MR_FAIL(err, NO_MEMORY, "the journal");
}

static mr_status open_loop(loop *l, mr_error *err)
{
    mr_trainer *t = &l->trainer;
    const mr_recipe *recipe = t->recipe;
    uint64_t examples = 0;
    l->stage = stages[recipe->stage];
    if (!l->stage)
        return MR_FAIL(err, UNSUPPORTED, "stage %s is not run by the loop",
                       mr_stage_name(recipe->stage));
    mr_status status = mr_file_make_folders(t->opt->out, err);
    if (status == MR_OK)
        status = mr_pool_new(&t->pool, t->opt->threads, err);
    if (status == MR_OK)
        status = mr_trainer_open_parts(t, err);
    if (status == MR_OK)
        status = l->stage->open(t, &l->state, &examples, err);
    if (status != MR_OK)
        return status;
    const double per_step = (double)recipe->batch * recipe->accumulate;
    l->steps = recipe->steps > 0 ? recipe->steps
                                 : (int64_t)ceil(recipe->epochs * (double)examples / per_step);
    if (l->steps < 1)
        return MR_FAIL(err, INVALID,
                       "there is nothing to do: %" PRIu64 " examples, %g epochs, %d per step",
                       examples, recipe->epochs, recipe->batch);
    const mr_recipe_optimizer *optimizer = &recipe->optimizer;
    l->adamw = (mr_adamw){.beta1 = optimizer->beta1,
                          .beta2 = optimizer->beta2,
                          .eps = optimizer->eps,
                          .weight_decay = optimizer->weight_decay};
    l->schedule = (mr_schedule){.peak = optimizer->rate,
                                .floor = optimizer->rate * optimizer->floor,
                                .warm_up = optimizer->warm_up,
                                .steps = l->steps};
    l->pass = (pass){.trainer = t, .stage = l->stage, .state = l->state};
    l->pass.report = calloc(t->n_shards, sizeof *l->pass.report);
    l->pass.status = calloc(t->n_shards, sizeof *l->pass.status);
    l->pass.error = calloc(t->n_shards, sizeof *l->pass.error);
    if (!l->pass.report || !l->pass.status || !l->pass.error)
        return MR_FAIL(err, NO_MEMORY, "%zu shards", t->n_shards);
    l->at.valid_loss = NAN;
    if (!t->opt->fresh)
        status = mr_checkpoint_resume(t, &l->at, err);
    if (status == MR_OK)
        status = open_journal(l, err);
    l->saved_us = mr_clock_monotonic_us();
    l->saved_step = l->at.step;
    return status;
}

mr_status mr_train_run(const mr_recipe *recipe, const mr_train_options *opt, mr_train_summary *out,
                       mr_error *err)
{
    if (recipe->stage == MR_STAGE_BPE)
        return mr_train_bpe(recipe, opt, out, err);
    loop l = {.trainer = {.recipe = recipe, .opt = opt, .ops = mr_ops_select_f32()}};
    mr_train_summary summary = {.valid_loss = NAN};
    mr_status status = open_loop(&l, err);
    if (status == MR_OK)
        status = run(&l, &summary, err);
    mr_journal_close(l.journal);
    if (status == MR_OK)
        *out = summary;
    if (l.state)
        l.stage->close(l.state);
    free(l.pass.report);
    free(l.pass.status);
    free(l.pass.error);
    mr_trainer_close_parts(&l.trainer);
    mr_pool_free(l.trainer.pool);
    return status;
}
