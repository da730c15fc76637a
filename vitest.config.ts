import os from "node:os";
import { defineConfig } from "vitest/config";

const resolve = { conditions: ["etcd-ts-source", "import", "node", "default"] };
const ssr = { resolve: { conditions: resolve.conditions, externalConditions: resolve.conditions } };

export default defineConfig({
  test: {
    projects: [
      {
        resolve,
        ssr,
        test: {
          name: "unit",
          include: ["packages/*/src/**/*.test.ts", "scripts/**/*.test.mjs"],
          environment: "node",
          globalSetup: ["./test/build-first.ts"],
          testTimeout: 60_000,
          // By default one core is left alone, which on a machine of two is half of it.
          maxWorkers: Math.max(2, os.availableParallelism() - 1),
          server: { deps: { inline: [/@etcd-ts\//] } },
        },
      },
      {
        resolve,
        ssr,
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          environment: "node",
          globalSetup: ["./test/build-first.ts"],
          testTimeout: 300_000,
          hookTimeout: 120_000,
          fileParallelism: true,
          maxWorkers: 2,
          server: { deps: { inline: [/@etcd-ts\//] } },
        },
      },
    ],
  },
});
