// Bundles the charts into what Go embeds. The licence of uPlot goes along, as it
// asks for.
import { readFileSync } from "node:fs";
import { build } from "esbuild";

const licence = readFileSync("node_modules/uplot/LICENSE", "utf8").trim();
await build({
  entryPoints: ["src/main.ts"],
  outfile: "../../internal/ui/web/dist/page.js",
  bundle: true,
  minify: true,
  target: "es2022",
  format: "iife",
  charset: "utf8",
  banner: { js: `/* uPlot: ${licence} */` },
  logLevel: "warning",
});
