import { defineConfig } from "vitest/config";

export default defineConfig({
  server: { fs: { allow: [".."] } },
  resolve: { alias: { "@": new URL("./src", import.meta.url).pathname } },
  test: { root: "..", include: ["tests/web/unit/**/*.test.ts"], environment: "node", pool: "threads", globals: true },
});
