/* kafka_broker.c - see kafka_broker.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/kafka_broker.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIPPED      77
#define MAX_SETTINGS 16

struct kafka_broker {
    char folder[256];
    char address[64];
};

static int last_code = 1;

/* The script with these arguments; its exit status. Its first line goes to out. */
static int run_script(const char *command, const char *folder, const char *const *settings,
                      char *out, size_t size)
{
    const char *argv[MAX_SETTINGS + 5] = {"sh", KAFKA_BROKER_SCRIPT, command, folder};
    int ends[2], status = 0;
    for (int i = 0; settings && settings[i] && i < MAX_SETTINGS; i++)
        argv[4 + i] = settings[i];
    if (pipe(ends) != 0)
        return 1;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execv("/bin/sh", (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(ends[1]);
    FILE *reader = fdopen(ends[0], "r");
    char line[128] = "";
    if (reader && fgets(line, sizeof line, reader) && out)
        snprintf(out, size, "%.*s", (int)strcspn(line, "\n"), line);
    if (reader)
        fclose(reader);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return child > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

kafka_broker *kafka_broker_start(const char *const *settings)
{
    char owner[32];
    const char *root = getenv("TMPDIR");
    kafka_broker *broker = calloc(1, sizeof *broker);
    last_code = 1;
    if (!broker)
        return NULL;
    snprintf(owner, sizeof owner, "%ld", (long)getpid());
    setenv("KAFKA_OWNER", owner, 1);
    snprintf(broker->folder, sizeof broker->folder, "%s/mixrank-kafka-XXXXXX",
             root && *root ? root : "/tmp");
    if (!mkdtemp(broker->folder)) {
        perror("kafka_broker: a temporary folder");
        free(broker);
        return NULL;
    }
    last_code =
        run_script("start", broker->folder, settings, broker->address, sizeof broker->address);
    if (last_code == 0)
        return broker;
    kafka_broker_free(broker);
    return NULL;
}

int kafka_broker_skip(void)
{
    return last_code == SKIPPED ? SKIPPED : 1;
}

void kafka_broker_free(kafka_broker *broker)
{
    if (!broker)
        return;
    run_script("remove", broker->folder, NULL, NULL, 0);
    rmdir(broker->folder); /* where nothing was started */
    free(broker);
}

const char *kafka_broker_address(const kafka_broker *broker)
{
    return broker->address;
}

bool kafka_broker_restart(kafka_broker *broker)
{
    return run_script("restart", broker->folder, NULL, NULL, 0) == 0;
}

bool kafka_broker_kill(kafka_broker *broker)
{
    return run_script("kill", broker->folder, NULL, NULL, 0) == 0;
}
