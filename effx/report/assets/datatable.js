// A table that sorts by any column, filters, and shows one page of rows at a time.
//
//   columns  {key, title, text(row) -> string or node, sort(row) -> number, string or nothing, align, hint}
//   sort     key of the column that rows are sorted by at first, by default the first; null: the order given

const PAGE = 25;

class DataTable {
  constructor({ caption, columns, rows, sort, descending, filters, rowClass, empty }) {
    Object.assign(this, { columns, rows, filters: filters || [], rowClass, empty: empty || 'No row matches the filter.' });
    this.sorted = sort === undefined ? columns[0].key : sort;
    this.descending = Boolean(descending);
    this.page = 0;
    this.query = '';
    this.chosen = {};
    this.head = el('tr', {});
    this.body = el('tbody', {});
    this.status = el('p', { class: 'soft status', role: 'status' });
    this.pager = el('div', { class: 'pager' });
    this.table = el('table', {}, el('caption', { class: 'hidden' }, caption), el('thead', {}, this.head), this.body);
    this.box = el('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': caption }, this.table);
    this.root = el('div', { class: 'datatable' }, this.controls(caption), this.status, this.box, this.pager);
    this.heads();
    this.update();
  }

  controls(caption) {
    if (this.rows.length < 2) return null;
    const text = el('input', { type: 'search', id: freshId('filter'), placeholder: 'name, variant, model …', autocomplete: 'off' });
    text.addEventListener('input', throttled(() => { this.query = text.value.trim().toLowerCase(); this.page = 0; this.update(); }));
    const choices = this.filters.map(({ label, value }) => {
      const seen = [...new Set(this.rows.map(value))].filter((entry) => entry !== null && entry !== undefined).sort();
      if (seen.length < 2) return null;
      return select(label, [['', 'all'], ...seen.map((entry) => [entry, entry])], '', (entry) => {
        this.chosen[label] = entry;
        this.page = 0;
        this.update();
      });
    });
    return el('div', { class: 'controls', role: 'search', 'aria-label': `Filter: ${caption}` },
      field('Filter', text), choices);
  }

  heads() {
    this.head.replaceChildren(...this.columns.map((column) => {
      const entry = column.key === this.sorted;
      const state = entry ? (this.descending ? 'descending' : 'ascending') : 'none';
      const cell = el('th', { scope: 'col', 'aria-sort': column.sort ? state : null, class: `${column.align || 'number'} of-${column.key}`, title: column.hint });
      if (!column.sort) { cell.append(column.title); return cell; }
      cell.append(el('button', { type: 'button', class: 'sort', onclick: () => this.sortBy(column.key) },
        column.title, el('span', { class: 'arrow', 'aria-hidden': 'true' }, entry ? (this.descending ? '▼' : '▲') : '↕')));
      return cell;
    }));
  }

  sortBy(key) {
    this.descending = this.sorted === key ? !this.descending : false;
    this.sorted = key;
    this.page = 0;
    const index = this.columns.findIndex((column) => column.key === key);
    this.heads();
    this.update();
    this.head.children[index].querySelector('button').focus();
  }

  matching() {
    const columns = this.columns;
    const matching = this.rows.filter((row) => {
      for (const { label, value } of this.filters) if (this.chosen[label] && String(value(row)) !== this.chosen[label]) return false;
      if (!this.query) return true;
      row.haystack ??= [row.name, row.variant, row.model, row.regime, row.backend, row.device, row.host, row.task, row.checkpoint, row.technique, row.level_text, row.id]
        .filter(Boolean).join(' ').toLowerCase();
      return this.query.split(/\s+/).every((word) => row.haystack.includes(word));
    });
    const column = columns.find((entry) => entry.key === this.sorted && entry.sort);
    if (!column) return matching;
    const sign = this.descending ? -1 : 1;
    return matching.map((row, index) => [column.sort(row), index, row]).sort(([a, first], [b, second]) => {
      const none = (entry) => entry === null || entry === undefined;
      if (none(a) || none(b)) return none(a) - none(b) || first - second; // missing values come last
      if (typeof a !== typeof b) return typeof a === 'number' ? -1 : 1; // texts among numbers before them
      return (a < b ? -sign : a > b ? sign : 0) || first - second;
    }).map(([, , row]) => row);
  }

  update() {
    const matching = this.matching();
    const pages = Math.max(1, Math.ceil(matching.length / PAGE));
    this.page = Math.min(this.page, pages - 1);
    const shown = matching.slice(this.page * PAGE, (this.page + 1) * PAGE);
    this.body.replaceChildren(...(shown.length ? shown.map((row) => this.line(row))
      : [el('tr', {}, el('td', { colspan: this.columns.length, class: 'word' }, this.empty))]));
    this.status.textContent = matching.length === this.rows.length
      ? count(matching.length, 'row') : `${matching.length.toLocaleString('en')} of ${count(this.rows.length, 'row')}`;
    if (pages > 1) this.status.textContent += `, page ${this.page + 1} of ${pages.toLocaleString('en')}`;
    const go = (text, page, able) => el('button', { type: 'button', disabled: !able, onclick: () => { this.page = page; this.update(); } }, text);
    const focused = this.pager.contains(document.activeElement) ? document.activeElement.textContent : null;
    this.pager.replaceChildren(...(pages > 1 ? [
      go('First', 0, this.page > 0), go('Previous', this.page - 1, this.page > 0),
      go('Next', this.page + 1, this.page < pages - 1), go('Last', pages - 1, this.page < pages - 1),
    ] : []));
    if (focused) [...this.pager.children].find((entry) => entry.textContent === focused && !entry.disabled)?.focus();
  }

  line(row) {
    return el('tr', { class: this.rowClass ? this.rowClass(row) : null }, this.columns.map((column, index) =>
      el(index ? 'td' : 'th', { class: `${column.align || 'number'} of-${column.key}`, scope: index ? null : 'row' }, column.text(row))));
  }
}
