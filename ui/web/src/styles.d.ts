// esbuild collects style sheets that are imported into page.css.
declare module "*.css";
