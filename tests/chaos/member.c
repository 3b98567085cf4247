/* member.c - see member.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/chaos/member.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/chaos/load.h"
#include "tests/kafka_support.h"

static mr_refresher *running;

static void on_signal(int number)
{
    (void)number;
    mr_refresher_stop(running);
}

static void on_event(void *context, mr_log_level level, const char *event, const char *detail)
{
    (void)context;
    if (getenv("CHAOS_VERBOSE") && level > MR_LOG_DEBUG)
        mr_log(level, "member", event, "detail", detail, NULL);
}

int chaos_member_main(int argc, char **argv)
{
    static const char *const kafka[] = {"session.timeout.ms", "3000", "heartbeat.interval.ms",
                                        "500", NULL};
    mr_error err = {0};
    mr_store *store = NULL;
    if (argc != 4)
        return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    mr_store_options store_options = MR_STORE_OPTIONS_DEFAULT;
    store_options.fast_writes = true;
    store_options.max_bytes = (uint64_t)1 << 30;
    store_options.open_away = true;
    store_options.write_timeout_ms = 300; /* shorter than Redis is away, so that puts do fail */
    mr_refresher_options options = kafka_options(argv[2], "chaos");
    options.kafka = kafka;
    options.item_embeddings = CHAOS_ITEMS;
    options.user_embeddings = CHAOS_USERS;
    options.on_event = on_event;
    mr_status status = mr_store_open(&store, argv[3], &store_options, &err);
    if (status == MR_OK)
        status = mr_refresher_new(&running, &options, store, NULL, NULL, &err);
    if (status == MR_OK) {
        signal(SIGTERM, on_signal);
        status = mr_refresher_run(running, &err);
        signal(SIGTERM, SIG_IGN);
    }
    if (status != MR_OK)
        fprintf(stderr, "chaos member %ld: %s\n", (long)getpid(), err.message);
    mr_refresher_free(running);
    mr_store_close(store);
    return status == MR_OK ? 0 : 1;
}

bool chaos_member_start(chaos_member *member, const char *brokers, const char *store)
{
    fflush(NULL);
    member->pid = fork();
    if (member->pid == 0) {
        execl("/proc/self/exe", "chaos", "--member", brokers, store, (char *)NULL);
        _exit(127);
    }
    return member->pid > 0;
}

void chaos_member_kill(chaos_member *member)
{
    if (member->pid <= 0)
        return;
    kill(member->pid, SIGKILL);
    waitpid(member->pid, NULL, 0);
    member->pid = 0;
}

bool chaos_member_died(chaos_member *member)
{
    int status = 0;
    if (member->pid <= 0 || waitpid(member->pid, &status, WNOHANG) != member->pid)
        return false;
    fprintf(stderr, "chaos: member %ld ended with status 0x%x\n", (long)member->pid, status);
    member->pid = 0;
    return true;
}

bool chaos_member_stop(chaos_member *member)
{
    int status = 0;
    if (member->pid <= 0)
        return true;
    kill(member->pid, SIGTERM);
    for (int i = 0; i < 300; i++) {
        if (waitpid(member->pid, &status, WNOHANG) == member->pid) {
            member->pid = 0;
            return WIFEXITED(status) && WEXITSTATUS(status) == 0;
        }
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    fprintf(stderr, "chaos: member %ld does not stop\n", (long)member->pid);
    chaos_member_kill(member);
    return false;
}
