// Graphile Worker: jobs in a table of its own, claimed by workers that LISTEN and poll.

"use strict";

const { writeFile } = require("node:fs/promises");
const { makeWorkerUtils, run, runMigrations } = require("graphile-worker");
const { DATABASE_URL, DIRECT_URL, POLL_S, CONCURRENCY, ATTEMPTS, CRON_S, PAYLOAD, ...effects } = require("effects.cjs");

const shared = { connectionString: DATABASE_URL, noPreparedStatements: process.env.PREPARE === "off" };
// workers LISTEN, which needs a connection past the pooler in transaction mode
const workers = process.env.WORK === "direct" ? { ...shared, connectionString: DIRECT_URL } : shared;
// a job key makes a second call replace the job that waits
const specOf = (key) => ({ jobKey: `job-${key}`, maxAttempts: ATTEMPTS });
const dataOf = (key) => ({ key, ...PAYLOAD });

async function withUtils(work) {
  const utils = await makeWorkerUtils(shared);
  try {
    return await work(utils);
  } finally {
    await utils.release();
  }
}

const commands = {
  install: () => runMigrations(shared),

  enqueue: (first, last) =>
    withUtils(async (utils) => {
      for (let key = first; key <= last; key++) {
        await utils.addJob("job", dataOf(key), specOf(key));
        await effects.enqueued(key);
      }
    }),

  async work() {
    const runner = await run({
      ...workers,
      concurrency: CONCURRENCY,
      pollInterval: POLL_S * 1000,
      taskList: {
        async job({ key, _cron: cron, ...payload }, { job }) {
          const attempt = cron ? Math.floor(new Date(cron.ts) / 1000 / CRON_S) : job.attempts;
          await effects.perform(key, { attempt, job: job.id, payload });
        },
      },
    });
    await runner.promise;
  },

  // the job is deleted
  cancel: (key) =>
    withUtils((utils) =>
      utils.withPgClient((client) => client.query("SELECT graphile_worker.remove_job($1)", [`job-${key}`])),
    ),

  // workers read the file `crontab` of their working directory when they start
  schedule: (key) => writeFile("crontab", `* * * * * job ${JSON.stringify(dataOf(key))}\n`),

  async in_transaction(lost, kept) {
    await effects.through(DATABASE_URL, async (client) => {
      for (const [key, end] of [[lost, "ROLLBACK"], [kept, "COMMIT"]]) {
        const { jobKey, maxAttempts } = specOf(key);
        await client.query("BEGIN");
        await client.query(
          "SELECT graphile_worker.add_job('job', $1::json, job_key => $2, max_attempts => $3)",
          [dataOf(key), jobKey, maxAttempts],
        );
        await client.query(end);
      }
    });
    await effects.enqueued(kept);
  },
};

const [command, ...keys] = process.argv.slice(2);
commands[command](...keys.map(Number)).then(
  () => process.exit(0),
  (error) => {
    console.error(`code: '${error.code}'\n${error.message}`);
    process.exit(1);
  },
);
