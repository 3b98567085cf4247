/* redis_loop.c - see redis_loop.h.
 *
 * Jobs wake the loop through an eventfd, so that libevent needs no locks of its own.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/redis_loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event.h>

struct mr_redis_loop {
    struct event_base *base;
    struct event *wake;
    int wake_fd;
    pthread_t thread;

    pthread_mutex_t lock;
    mr_redis_job *first, *last; /* under lock */
};

struct mr_redis_timer {
    struct event *event;
    void (*run)(void *context);
    void *context;
};

static void on_wake(evutil_socket_t fd, short what, void *context)
{
    mr_redis_loop *loop = context;
    uint64_t count;
    (void)what;
    if (read(fd, &count, sizeof count) < 0 && errno != EAGAIN && errno != EINTR)
        return; /* cannot be; the jobs below run all the same when the next wake comes */
    pthread_mutex_lock(&loop->lock);
    mr_redis_job *job = loop->first;
    loop->first = loop->last = NULL;
    pthread_mutex_unlock(&loop->lock);
    while (job) {
        mr_redis_job *next = job->next;
        job->run(job);
        job = next;
    }
}

static void *loop_main(void *context)
{
    mr_redis_loop *loop = context;
    event_base_dispatch(loop->base);
    return NULL;
}

static void loop_release(mr_redis_loop *loop)
{
    if (loop->wake)
        event_free(loop->wake);
    if (loop->base)
        event_base_free(loop->base);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

mr_status mr_redis_loop_new(mr_redis_loop **out, mr_error *err)
{
    sigset_t all, before;
    mr_redis_loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        return MR_FAIL(err, NO_MEMORY, "no memory for the event loop of a Redis store");
    pthread_mutex_init(&loop->lock, NULL);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct event_config *config = event_config_new();
    if (config) {
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
        event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
        loop->base = event_base_new_with_config(config);
        event_config_free(config);
    }
    if (loop->base && loop->wake_fd >= 0)
        loop->wake = event_new(loop->base, loop->wake_fd, EV_READ | EV_PERSIST, on_wake, loop);
    if (!loop->wake || event_add(loop->wake, NULL) != 0) {
        loop_release(loop);
        return MR_FAIL(err, EXHAUSTED,
                       "a Redis store's event loop cannot be made: %s; check the limit of open "
                       "files (ulimit -n)",
                       strerror(errno));
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's threads */
    int rc = pthread_create(&loop->thread, NULL, loop_main, loop);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        loop_release(loop);
        return MR_FAIL(err, EXHAUSTED, "a Redis store's thread cannot be started: %s",
                       strerror(rc));
    }
    *out = loop;
    return MR_OK;
}

void mr_redis_loop_post(mr_redis_loop *loop, mr_redis_job *job)
{
    const uint64_t one = 1;
    job->next = NULL;
    pthread_mutex_lock(&loop->lock);
    bool wake = loop->first == NULL;
    if (loop->last)
        loop->last->next = job;
    else
        loop->first = job;
    loop->last = job;
    pthread_mutex_unlock(&loop->lock);
    if (wake) {
        while (write(loop->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
            ;
    }
}

/* ---- calls ----------------------------------------------------------------------------------- */

typedef struct {
    mr_redis_job job;
    void (*run)(void *context);
    void *context;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
} call;

static void run_call(mr_redis_job *job)
{
    call *c = (call *)job;
    c->run(c->context);
    pthread_mutex_lock(&c->lock);
    c->done = true;
    pthread_cond_signal(&c->ended);
    pthread_mutex_unlock(&c->lock);
}

void mr_redis_loop_call(mr_redis_loop *loop, void (*run)(void *context), void *context)
{
    call c = {.job.run = run_call, .run = run, .context = context};
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.ended, NULL);
    mr_redis_loop_post(loop, &c.job);
    pthread_mutex_lock(&c.lock);
    while (!c.done)
        pthread_cond_wait(&c.ended, &c.lock);
    pthread_mutex_unlock(&c.lock);
    pthread_cond_destroy(&c.ended);
    pthread_mutex_destroy(&c.lock);
}

typedef struct {
    mr_redis_job job;
    mr_redis_loop *loop;
    void (*last)(void *context);
    void *context;
} farewell;

static void run_farewell(mr_redis_job *job)
{
    farewell *f = (farewell *)job;
    if (f->last)
        f->last(f->context);
    event_base_loopbreak(f->loop->base);
}

void mr_redis_loop_free(mr_redis_loop *loop, void (*last)(void *context), void *context)
{
    if (!loop)
        return;
    farewell f = {{NULL, run_farewell}, loop, last, context};
    mr_redis_loop_post(loop, &f.job);
    pthread_join(loop->thread, NULL);
    loop_release(loop);
}

struct event_base *mr_redis_loop_base(mr_redis_loop *loop)
{
    return loop->base;
}

/* ---- timers ---------------------------------------------------------------------------------- */

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    mr_redis_timer *timer = context;
    (void)fd;
    (void)what;
    timer->run(timer->context); /* may have freed the timer */
}

mr_redis_timer *mr_redis_timer_new(mr_redis_loop *loop, void (*run)(void *context), void *context)
{
    mr_redis_timer *timer = calloc(1, sizeof *timer);
    if (!timer)
        return NULL;
    *timer = (mr_redis_timer){.run = run, .context = context};
    timer->event = event_new(loop->base, -1, 0, on_timer, timer);
    if (!timer->event) {
        free(timer);
        return NULL;
    }
    return timer;
}

void mr_redis_timer_arm(mr_redis_timer *timer, int64_t after_ms)
{
    struct timeval after = {.tv_sec = (time_t)(after_ms / 1000),
                            .tv_usec = (suseconds_t)(after_ms % 1000 * 1000)};
    event_add(timer->event, &after);
}

void mr_redis_timer_stop(mr_redis_timer *timer)
{
    event_del(timer->event);
}

void mr_redis_timer_free(mr_redis_timer *timer)
{
    if (!timer)
        return;
    event_free(timer->event);
    free(timer);
}
