/* batcher.c - a queue of jobs by deadline, and the thread that runs passes. See batcher.h.
 *
 * A pass: under the lock, finish what is cancelled or late, then walk the queue and take pieces of
 * jobs until the token budget is spent. Jobs of one prefix share its entry and its batch. Without
 * the lock, run. Under the lock again, hand out margins. A job that waits is touched by its caller
 * never, and by this thread always: its fields need no lock of their own.
 *
 * If a pass fails as a whole, its pieces are run one by one, so that one job's bad input is that
 * job's failure alone.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/model/batcher.h"

#include <pthread.h>
#include <stdlib.h>

#include "core/clock.h"

#define DEFAULT_MAX_ROWS    1024
#define DEFAULT_QUEUE       64 /* x max_rows */
#define DEFAULT_CACHE_BYTES (UINT64_C(256) << 20)
#define MAX_PIECES          64 /* jobs of one pass */

/* A job in the queue, on its caller's stack. */
typedef struct waiting waiting;
struct waiting {
    mr_batch_job *job;
    waiting *next;
    size_t rows_left; /* suffix positions not yet computed */
    int64_t arrived_us;
    bool started, finished;
    mr_status status;
    mr_error err;
    pthread_cond_t changed;
};

/* Suffixes [first, first + n) of a job in a pass. */
typedef struct {
    waiting *waiting;
    mr_prefix_entry *entry;
    size_t first, n, rows;
} piece;

struct mr_batcher {
    const mr_bundle *bundle;
    mr_session *session;
    mr_prefix_cache *cache;
    size_t max_rows, max_queue_rows, C;
    pthread_t thread;
    bool has_thread;

    pthread_mutex_t lock;
    pthread_cond_t arrived;
    waiting *first; /* by deadline, then by arrival */
    bool stopping;
    mr_batcher_stats stats; /* under the lock, the cache's part copied there after each pass */

    /* The pass in hand. */
    piece pieces[MAX_PIECES];
    size_t n_pieces;
    mr_input *inputs;    /* [max_rows], suffixes in the order of the batches */
    size_t *input_piece; /* [max_rows], which piece each is of */
    mr_input prefixes[MAX_PIECES];
    mr_batch batches[MAX_PIECES];
    float *hidden; /* [max_rows][C] */
};

/* ---- life ------------------------------------------------------------------------------------ */

static void *run_passes(void *context);

mr_status mr_batcher_new(mr_batcher **out, const mr_bundle *bundle,
                         const mr_batcher_options *options, mr_error *err)
{
    const mr_batcher_options opt = options ? *options : (mr_batcher_options){0};
    mr_batcher *b = calloc(1, sizeof *b);
    if (!b)
        return MR_FAIL(err, NO_MEMORY, "a batcher");
    b->bundle = bundle;
    b->C = (size_t)bundle->llm->config.C;
    b->max_rows = opt.max_rows ? opt.max_rows : DEFAULT_MAX_ROWS;
    b->max_queue_rows = opt.max_queue_rows ? opt.max_queue_rows : DEFAULT_QUEUE * b->max_rows;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->arrived, NULL);

    const size_t longest = bundle->max_length;
    const mr_session_options session = {.max_prefix = longest,
                                        .max_rows = b->max_rows > longest ? b->max_rows : longest,
                                        .max_suffix = longest,
                                        .pool = bundle->pool,
                                        .borrowed_timelines = true};
    mr_status status = mr_session_new(&b->session, bundle->llm, &session, err);
    if (status == MR_OK)
        status = mr_prefix_cache_new(&b->cache, bundle->llm,
                                     opt.cache_bytes ? opt.cache_bytes : DEFAULT_CACHE_BYTES, err);
    b->inputs = calloc(b->max_rows, sizeof *b->inputs);
    b->input_piece = calloc(b->max_rows, sizeof *b->input_piece);
    b->hidden = calloc(b->max_rows * b->C, sizeof *b->hidden);
    if (status == MR_OK && (!b->inputs || !b->input_piece || !b->hidden))
        status = MR_FAIL(err, NO_MEMORY, "buffers of a batcher for %zu rows", b->max_rows);
    if (status == MR_OK) {
        b->has_thread = pthread_create(&b->thread, NULL, run_passes, b) == 0;
        if (!b->has_thread)
            status = MR_FAIL(err, EXHAUSTED, "no thread for a batcher; is a limit reached?");
    }
    if (status != MR_OK) {
        mr_batcher_free(b);
        return status;
    }
    *out = b;
    return MR_OK;
}

void mr_batcher_free(mr_batcher *b)
{
    if (!b)
        return;
    if (b->has_thread) {
        pthread_mutex_lock(&b->lock);
        b->stopping = true;
        pthread_cond_signal(&b->arrived);
        pthread_mutex_unlock(&b->lock);
        pthread_join(b->thread, NULL);
    }
    mr_prefix_cache_free(b->cache);
    mr_session_free(b->session);
    pthread_cond_destroy(&b->arrived);
    pthread_mutex_destroy(&b->lock);
    free(b->inputs);
    free(b->input_piece);
    free(b->hidden);
    free(b);
}

/* ---- the queue ------------------------------------------------------------------------------- */

static void enqueue(mr_batcher *b, waiting *w)
{
    const int64_t deadline = w->job->deadline_us ? w->job->deadline_us : INT64_MAX;
    waiting **link = &b->first;
    for (; *link; link = &(*link)->next) {
        const int64_t other = (*link)->job->deadline_us;
        if (deadline < (other ? other : INT64_MAX))
            break;
    }
    w->next = *link;
    *link = w;
    b->stats.queued_rows += w->rows_left;
}

/* Takes a job out of the queue; its caller wakes. */
static void finish(mr_batcher *b, waiting *w, mr_status status)
{
    waiting **link = &b->first;
    while (*link != w)
        link = &(*link)->next;
    *link = w->next;
    b->stats.queued_rows -= w->rows_left;
    w->status = status;
    w->finished = true;
    pthread_cond_signal(&w->changed);
}

mr_status mr_batcher_run(mr_batcher *b, mr_batch_job *job, mr_error *err)
{
    waiting w = {.job = job, .arrived_us = mr_clock_monotonic_us()};
    job->n_done = 0;
    job->prefix_cached = 0;
    job->waited_us = 0;
    if (job->n == 0)
        return MR_OK;
    for (size_t i = 0; i < job->n; i++)
        w.rows_left += job->suffixes[i].n;

    pthread_mutex_lock(&b->lock);
    if (b->first && b->stats.queued_rows + w.rows_left > b->max_queue_rows) {
        const size_t queued = b->stats.queued_rows;
        b->stats.rejected++;
        pthread_mutex_unlock(&b->lock);
        return MR_FAIL(
            err, EXHAUSTED,
            "%zu tokens wait to be scored, %zu more are over the bound of %zu; try again "
            "later",
            queued, w.rows_left, b->max_queue_rows);
    }
    pthread_cond_init(&w.changed, NULL);
    b->stats.jobs++;
    enqueue(b, &w);
    pthread_cond_signal(&b->arrived);
    while (!w.finished)
        pthread_cond_wait(&w.changed, &b->lock);
    pthread_mutex_unlock(&b->lock);
    pthread_cond_destroy(&w.changed);
    if (w.status != MR_OK && err)
        *err = w.err;
    return w.status;
}

/* Jobs that nobody waits for any more, or not long enough. */
static void finish_late(mr_batcher *b)
{
    const int64_t now = mr_clock_monotonic_us();
    for (waiting *w = b->first, *next; w; w = next) {
        const mr_batch_job *job = w->job;
        next = w->next;
        if (job->cancelled && atomic_load_explicit(job->cancelled, memory_order_relaxed)) {
            b->stats.cancelled++;
            finish(b, w,
                   MR_FAIL(&w->err, CANCELLED, "cancelled after %zu of %zu candidates", job->n_done,
                           job->n));
        } else if (job->deadline_us && now >= job->deadline_us) {
            b->stats.timeouts++;
            finish(b, w,
                   MR_FAIL(&w->err, TIMEOUT, "the deadline passed after %zu of %zu candidates",
                           job->n_done, job->n));
        }
    }
}

/* ---- a pass ---------------------------------------------------------------------------------- */

/* Positions of a prefix that this pass would have to compute: none if a piece before does. */
static size_t prefix_rows(const mr_batcher *b, const mr_prefix_key *key)
{
    const mr_prefix_entry *entry;
    const size_t lacking = mr_prefix_cache_lacking(b->cache, key, &entry);
    for (size_t i = 0; entry && i < b->n_pieces; i++) {
        if (b->pieces[i].entry == entry)
            return 0;
    }
    return lacking;
}

/* As many suffixes of a job as fit into the rows that are left; in an empty pass at least one. */
static void take_piece(mr_batcher *b, waiting *w, size_t *rows, size_t *inputs)
{
    mr_batch_job *job = w->job;
    const bool is_first = b->n_pieces == 0;
    if (!is_first && *rows + job->suffixes[job->n_done].n > b->max_rows)
        return; /* before a prefix is looked for that will not be used */
    const size_t before = prefix_rows(b, &job->prefix);
    piece p = {.waiting = w, .first = job->n_done, .rows = before};
    while (p.first + p.n < job->n && *inputs + p.n < b->max_rows) {
        const size_t n = job->suffixes[p.first + p.n].n;
        if (*rows + p.rows + n > b->max_rows && !(is_first && p.n == 0))
            break;
        p.rows += n;
        p.n++;
    }
    if (p.n == 0)
        return;
    mr_status status = mr_prefix_cache_take(b->cache, &job->prefix, &p.entry, &w->err);
    if (status != MR_OK) {
        finish(b, w, status);
        return;
    }
    if (!w->started) {
        w->started = true;
        job->waited_us = mr_clock_monotonic_us() - w->arrived_us;
        job->prefix_cached = job->prefix.input.n - before;
    }
    b->pieces[b->n_pieces++] = p;
    *rows += p.rows;
    *inputs += p.n;
}

static void take_pieces(mr_batcher *b)
{
    size_t rows = 0, inputs = 0;
    b->n_pieces = 0;
    for (waiting *w = b->first, *next; w && b->n_pieces < MAX_PIECES; w = next) {
        next = w->next;
        if (rows >= b->max_rows)
            break;
        take_piece(b, w, &rows, &inputs);
    }
}

/* Pieces [first, first + n) -> one batch per prefix, suffixes of one prefix together. */
static size_t build_batches(mr_batcher *b, size_t first, size_t n)
{
    size_t n_batches = 0, at = 0;
    for (size_t i = first; i < first + n; i++) {
        mr_prefix_entry *entry = b->pieces[i].entry;
        bool is_new = true;
        for (size_t j = first; j < i; j++)
            is_new = is_new && b->pieces[j].entry != entry;
        if (!is_new)
            continue;
        mr_batch *batch = &b->batches[n_batches];
        b->prefixes[n_batches] = mr_prefix_entry_pending(entry);
        *batch = (mr_batch){.timeline = mr_prefix_entry_timeline(entry),
                            .prefix = b->prefixes[n_batches].n ? &b->prefixes[n_batches] : NULL,
                            .suffixes = b->inputs + at,
                            .suffix_want = MR_WANT_LAST,
                            .n_last = 1};
        for (size_t j = i; j < first + n; j++) {
            const piece *p = &b->pieces[j];
            if (p->entry != entry)
                continue;
            for (size_t s = 0; s < p->n; s++) {
                b->input_piece[at] = j;
                b->inputs[at++] = p->waiting->job->suffixes[p->first + s];
            }
            batch->n_suffixes += p->n;
        }
        n_batches++;
    }
    return n_batches;
}

/* Runs pieces [first, first + n) and writes their margins; the jobs' counts move later. */
static mr_status run_pieces(mr_batcher *b, size_t first, size_t n, mr_error *err)
{
    const size_t n_batches = build_batches(b, first, n);
    mr_status status = mr_session_run_many(b->session, b->batches, n_batches, b->hidden, err);
    if (status != MR_OK)
        return status;
    size_t done[MAX_PIECES] = {0}, total = 0;
    for (size_t i = 0; i < n_batches; i++)
        total += b->batches[i].n_suffixes;
    for (size_t i = 0; i < total; i++) {
        const size_t owner = b->input_piece[i];
        const piece *p = &b->pieces[owner];
        p->waiting->job->margins[p->first + done[owner]++] =
            mr_bundle_margin(b->bundle, b->hidden + i * b->C);
    }
    return MR_OK;
}

/* The pass's pieces are done (or failed): counts move, finished jobs leave. */
static void account(mr_batcher *b, const mr_status *status, const mr_error *why)
{
    for (size_t i = 0; i < b->n_pieces; i++) {
        piece *p = &b->pieces[i];
        mr_batch_job *job = p->waiting->job;
        if (status[i] == MR_OK) {
            for (size_t s = 0; s < p->n; s++) {
                p->waiting->rows_left -= job->suffixes[p->first + s].n;
                b->stats.queued_rows -= job->suffixes[p->first + s].n;
            }
            job->n_done += p->n;
            b->stats.candidates += p->n;
        }
        if (status[i] != MR_OK)
            p->waiting->err = why[i];
        if (status[i] != MR_OK || job->n_done == job->n)
            finish(b, p->waiting, status[i]);
    }
}

static void run_pass(mr_batcher *b)
{
    mr_status status[MAX_PIECES];
    mr_error why[MAX_PIECES];
    size_t rows = 0;
    const int64_t start = mr_clock_monotonic_us();
    why[0] = (mr_error){0};
    status[0] = run_pieces(b, 0, b->n_pieces, &why[0]);
    for (size_t i = 1; i < b->n_pieces; i++)
        status[i] = status[0];
    if (status[0] != MR_OK && b->n_pieces > 1) {
        for (size_t i = 0; i < b->n_pieces; i++) {
            why[i] = (mr_error){0};
            status[i] = run_pieces(b, i, 1, &why[i]);
        }
    }
    const double seconds = (double)(mr_clock_monotonic_us() - start) / 1e6;
    for (size_t i = 0; i < b->n_pieces; i++) {
        rows += b->pieces[i].rows;
        mr_prefix_cache_give(b->cache, b->pieces[i].entry);
    }

    pthread_mutex_lock(&b->lock);
    account(b, status, why);
    b->stats.passes++;
    b->stats.rows += rows;
    b->stats.merged += b->n_pieces > 1;
    if (seconds > 0) {
        const double pace = (double)rows / seconds;
        b->stats.rows_per_s =
            b->stats.rows_per_s > 0 ? 0.9 * b->stats.rows_per_s + 0.1 * pace : pace;
    }
    mr_prefix_cache_stat(b->cache, &b->stats.cache);
    pthread_mutex_unlock(&b->lock);
}

static void *run_passes(void *context)
{
    mr_batcher *b = context;
    pthread_mutex_lock(&b->lock);
    while (!b->stopping) {
        finish_late(b);
        take_pieces(b);
        if (b->n_pieces == 0) {
            if (!b->first)
                pthread_cond_wait(&b->arrived, &b->lock);
            continue;
        }
        pthread_mutex_unlock(&b->lock);
        run_pass(b);
        pthread_mutex_lock(&b->lock);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

void mr_batcher_stat(mr_batcher *b, mr_batcher_stats *out)
{
    pthread_mutex_lock(&b->lock);
    *out = b->stats;
    pthread_mutex_unlock(&b->lock);
}
